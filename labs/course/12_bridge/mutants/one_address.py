# mutant: gives the container the first of its addresses
# loses: test_addresses_and_the_way_out
# diagnosis: was to have .* and has .*/24: .* is missing

# %%exercise bridge.connect
from minicontainer.linux.netlink import Netlink, opened_namespace


def connect(pid, bridge, interface, addresses, gateways=(), *, host_interface=None, mac=None, mtu=None):
    """Lay a cable from the bridge into the network namespace of process `pid`."""
    host_interface = host_interface or f"mc{os.urandom(4).hex()}"
    with Netlink() as here, Netlink(pid=pid) as there, opened_namespace(pid) as namespace:
        here.add_veth(host_interface, interface, namespace, mtu=mtu, mac=mac)
        here.set_link(host_interface, master=here.index(bridge), up=True)
        for address in addresses[:1]:
            there.add_address(interface, address)
        there.set_link(interface, up=True)
        for gateway in gateways:
            there.add_route("default", gateway, interface)
    return host_interface
