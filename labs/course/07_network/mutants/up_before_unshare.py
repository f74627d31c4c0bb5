# mutant: switches a loopback on that is still the host's, and gets another one
# loses: test_loopback, test_nothing_else
# diagnosis: is switched off, as every device|switched on before unshare

# %%exercise network.bring_up_loopback
def bring_up_loopback():
    """Give the calling process a network namespace of its own, and switch its loopback device on."""
    set_interface_flags("lo", interface_flags("lo") | IFF_UP)
    unshare(CLONE_NEWNET)
