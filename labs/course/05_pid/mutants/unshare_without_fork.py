# mutant: calls unshare, and takes itself for process 1: it is its next child that would be
# loses: test_process_1, test_caller_stays, test_status_of_main, test_other_namespaces, test_orphans, test_many_at_once, test_signals, test_exit_status, test_ends_with_the_program
# diagnosis: unshare\(CLONE_NEWPID\) was called, and nobody was born after it|container.* did not come to an end

# %%exercise pid.spawn_init
def spawn_init(main, namespaces=(Namespace.PID,)):
    unshare(flags(namespaces))
    main()
    return os.getpid()
