# mutant: any device that can have an address will do, it thought
# loses: test_the_bridge
# diagnosis: is a device of the kind "veth", and nothing can be plugged

# %%exercise bridge.create_bridge
from minicontainer.linux.netlink import Netlink, opened_namespace


def create_bridge(name, addresses, mtu=None):
    """Make a bridge, give the host these addresses on it, and switch it on."""
    with Netlink() as kernel, opened_namespace(os.getpid()) as here:
        kernel.add_veth(name, "other", here, mtu=mtu)
        for address in addresses:
            kernel.add_address(name, address)
        kernel.set_link(name, up=True)
