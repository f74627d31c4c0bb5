# mutant: masquerades one subnet of several
# loses: test_out
# diagnosis: it was not masqueraded, though what it sends from its first subnet is

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
    for subnet in subnets[:1]:
        nft(f'add rule inet lab12 postrouting ip saddr {subnet} oifname != "{bridge}" masquerade')
