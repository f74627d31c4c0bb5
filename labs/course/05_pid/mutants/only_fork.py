# mutant: an ordinary child
# loses: test_process_1, test_other_namespaces, test_orphans, test_many_at_once, test_ends_with_the_program
# diagnosis: no new one was made|must be born into both|nobody in there is process 1

# %%exercise pid.spawn_init
def spawn_init(main, namespaces=(Namespace.PID,)):
    pid = os.fork()
    if pid == 0:
        os._exit(main())
    return pid
