# mutant: does everything in a child, as ip netns exec does, and the container is the parent
# loses: test_own_namespace, test_own_ports, test_loopback, test_nothing_else
# diagnosis: was not called|both have the same ports|no loopback of its own|no merit

# %%exercise network.bring_up_loopback
def bring_up_loopback():
    """Give the calling process a network namespace of its own, and switch its loopback device on."""
    child = os.fork()
    if child == 0:
        unshare(CLONE_NEWNET)
        set_interface_flags("lo", interface_flags("lo") | IFF_UP)
        os._exit(0)
    os.waitpid(child, 0)
