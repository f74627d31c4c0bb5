# %%exercise bridge.create_bridge
from minicontainer.linux.netlink import Netlink


def create_bridge(name, addresses, mtu=None):
    """Make a bridge, give the host these addresses on it, and switch it on."""
    with Netlink() as kernel:
        kernel.add_bridge(name, mtu)
        for address in addresses:
            kernel.add_address(name, address)
        kernel.set_link(name, up=True)


# %%exercise bridge.connect
from minicontainer.linux.netlink import Netlink, opened_namespace


def connect(pid, bridge, interface, addresses, gateways=(), *, host_interface=None, mac=None, mtu=None):
    """Lay a cable from the bridge into the network namespace of process `pid`."""
    host_interface = host_interface or f"mc{os.urandom(4).hex()}"
    with Netlink() as here, Netlink(pid=pid) as there, opened_namespace(pid) as namespace:
        here.add_veth(host_interface, interface, namespace, mtu=mtu, mac=mac)
        here.set_link(host_interface, master=here.index(bridge), up=True)
        for address in addresses:
            there.add_address(interface, address)
        there.set_link(interface, up=True)
        for gateway in gateways:
            there.add_route("default", gateway, interface)
    return host_interface


# %%exercise nat.masquerade
from minicontainer.linux.nftables import run as nft


def masquerade(bridge, subnets):
    """Let what the bridge's subnets send to elsewhere go out with the host's own address."""
    with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
        file.write("1")
    nft("""
        add table inet lab12
        add chain inet lab12 postrouting { type nat hook postrouting priority 100; }
    """)
    for subnet in subnets:
        nft(f'add rule inet lab12 postrouting ip saddr {subnet} oifname != "{bridge}" masquerade')


# %%exercise nat.publish
from minicontainer.linux.nftables import run as nft


def publish(bridge, ports):
    """Have what comes for ports of the host go to containers."""
    with open(f"/proc/sys/net/ipv4/conf/{bridge}/route_localnet", "w") as file:
        file.write("1")
    commands = f"""
        add table inet lab12
        add chain inet lab12 published
        add chain inet lab12 prerouting {{ type nat hook prerouting priority -100; }}
        add chain inet lab12 output {{ type nat hook output priority -100; }}
        add chain inet lab12 postrouting {{ type nat hook postrouting priority 100; }}
        add rule inet lab12 prerouting fib daddr type local jump published
        add rule inet lab12 output fib daddr type local jump published
        add rule inet lab12 postrouting ip saddr 127.0.0.0/8 oifname "{bridge}" masquerade
    """
    for protocol, address, port, to, to_port in ports:
        where = "" if address in ("", "0.0.0.0") else f"ip daddr {address}"
        commands += f"add rule inet lab12 published {where} {protocol} dport {port} dnat ip to {to}:{to_port}\n"
    nft(commands)
