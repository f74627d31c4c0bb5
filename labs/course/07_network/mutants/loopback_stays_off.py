# mutant: makes the namespace and takes it for finished
# loses: test_loopback
# diagnosis: "lo", is switched off, as every device is in a new network namespace

# %%exercise network.bring_up_loopback
def bring_up_loopback():
    """Give the calling process a network namespace of its own, and switch its loopback device on."""
    unshare(CLONE_NEWNET)
