# mutant: ends the child well, and forgets what main returned
# loses: test_status_of_main, test_exit_status
# diagnosis: its result must be handed to os\._exit\(\)|and reap\(\) made 0 of it

# %%exercise pid.spawn_init
def spawn_init(main, namespaces=(Namespace.PID,)):
    pid = clone3(flags(namespaces))
    if pid == 0:
        main()
        os._exit(0)
    return pid
