# mutant: begins with an empty ruleset, which it is not its own to empty
# loses: test_others_stay_who_they_are
# diagnosis: its rule is gone: a firewall, perhaps

# %%exercise nat.masquerade
from minicontainer.linux.nftables import run as nft


def masquerade(bridge, subnets):
    """Let what the bridge's subnets send to elsewhere go out with the host's own address."""
    with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
        file.write("1")
    nft("""
        flush ruleset
        add table inet lab12
        add chain inet lab12 postrouting { type nat hook postrouting priority 100; }
    """)
    for subnet in subnets:
        nft(f'add rule inet lab12 postrouting ip saddr {subnet} oifname != "{bridge}" masquerade')
