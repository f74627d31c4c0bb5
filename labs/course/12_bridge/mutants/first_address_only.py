# mutant: takes the first of several addresses for all there are
# loses: test_the_bridge
# diagnosis: /20 is missing

# %%exercise bridge.create_bridge
from minicontainer.linux.netlink import Netlink


def create_bridge(name, addresses, mtu=None):
    """Make a bridge, give the host these addresses on it, and switch it on."""
    with Netlink() as kernel:
        kernel.add_bridge(name, mtu)
        for address in addresses[:1]:
            kernel.add_address(name, address)
        kernel.set_link(name, up=True)
