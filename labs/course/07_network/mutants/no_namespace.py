# mutant: switches the loopback on, and makes no namespace for it
# loses: test_own_namespace, test_own_ports, test_loopback, test_nothing_else
# diagnosis: CLONE_NEWNET\) was not called|both have the same ports|no loopback of its own|no merit

# %%exercise network.bring_up_loopback
def bring_up_loopback():
    """Give the calling process a network namespace of its own, and switch its loopback device on."""
    set_interface_flags("lo", interface_flags("lo") | IFF_UP)
