# mutant: switches forwarding on, and leaves the container's address on what goes out
# loses: test_out, test_others_stay_who_they_are
# diagnosis: it was not masqueraded|no merit

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
