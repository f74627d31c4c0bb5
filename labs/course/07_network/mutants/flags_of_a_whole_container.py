# mutant: makes all namespaces at once, as other programs do
# loses: test_nothing_else
# diagnosis: namespaces of the kind uts, ipc: unshare\(\) was given more flags

# %%exercise network.bring_up_loopback
def bring_up_loopback():
    """Give the calling process a network namespace of its own, and switch its loopback device on."""
    unshare(CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC)
    set_interface_flags("lo", interface_flags("lo") | IFF_UP)
