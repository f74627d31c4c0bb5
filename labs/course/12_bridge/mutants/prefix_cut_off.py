# mutant: gives the host its addresses without their networks: nobody on the bridge is its neighbour then
# loses: test_the_bridge
# diagnosis: \.1/24, .* is missing\. The prefix belongs to it

# %%exercise bridge.create_bridge
from minicontainer.linux.netlink import Netlink


def create_bridge(name, addresses, mtu=None):
    """Make a bridge, give the host these addresses on it, and switch it on."""
    with Netlink() as kernel:
        kernel.add_bridge(name, mtu)
        for address in addresses:
            kernel.add_address(name, address.partition("/")[0] + "/32")
        kernel.set_link(name, up=True)
