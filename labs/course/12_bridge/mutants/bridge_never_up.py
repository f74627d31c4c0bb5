# mutant: makes the bridge and forgets to switch it on
# loses: test_the_bridge
# diagnosis: is there and switched off

# %%exercise bridge.create_bridge
from minicontainer.linux.netlink import Netlink


def create_bridge(name, addresses, mtu=None):
    """Make a bridge, give the host these addresses on it, and switch it on."""
    with Netlink() as kernel:
        kernel.add_bridge(name, mtu)
        for address in addresses:
            kernel.add_address(name, address)
