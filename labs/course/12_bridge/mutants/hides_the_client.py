# mutant: masquerades whoever comes in, so that every client is the host
# loses: test_in
# diagnosis: only the destination is to be

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
        add rule inet lab12 postrouting oifname "{bridge}" masquerade
    """
    for protocol, address, port, to, to_port in ports:
        where = "" if address in ("", "0.0.0.0") else f"ip daddr {address}"
        commands += f"add rule inet lab12 published {where} {protocol} dport {port} dnat ip to {to}:{to_port}\n"
    nft(commands)
