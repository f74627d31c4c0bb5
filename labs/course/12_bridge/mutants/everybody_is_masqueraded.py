# mutant: one rule for whatever leaves the host
# loses: test_others_stay_who_they_are
# diagnosis: is seen outside as the host

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
    for _ in subnets:
        nft(f'add rule inet lab12 postrouting oifname != "{bridge}" masquerade')
