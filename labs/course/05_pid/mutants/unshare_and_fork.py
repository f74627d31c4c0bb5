# mutant: makes the namespace with unshare, and so changes the caller
# loses: test_caller_stays, test_other_namespaces
# diagnosis: that was unshare\(CLONE_NEWPID\), which changes the caller for good|must be born into both

# %%exercise pid.spawn_init
def spawn_init(main, namespaces=(Namespace.PID,)):
    unshare(flags(namespaces))
    pid = os.fork()
    if pid == 0:
        os._exit(main())
    return pid
