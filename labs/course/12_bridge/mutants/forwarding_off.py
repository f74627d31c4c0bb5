# mutant: the rules are right, and the host passes nothing on
# loses: test_out
# diagnosis: the host's ip_forward is 0

# %%exercise nat.masquerade
from minicontainer.linux.nftables import run as nft


def masquerade(bridge, subnets):
    """Let what the bridge's subnets send to elsewhere go out with the host's own address."""
    nft("""
        add table inet lab12
        add chain inet lab12 postrouting { type nat hook postrouting priority 100; }
    """)
    for subnet in subnets:
        nft(f'add rule inet lab12 postrouting ip saddr {subnet} oifname != "{bridge}" masquerade')
