# mutant: does not look at `namespaces`
# loses: test_other_namespaces
# diagnosis: process 1 must be born into both

# %%exercise pid.spawn_init
def spawn_init(main, namespaces=(Namespace.PID,)):
    pid = clone3(CLONE_NEWPID)
    if pid == 0:
        os._exit(main())
    return pid
