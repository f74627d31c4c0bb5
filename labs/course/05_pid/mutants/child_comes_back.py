# mutant: the child returns to the caller's code after main
# loses: test_status_of_main, test_exit_status
# diagnosis: the child came back out of spawn_init\(\)|and reap\(\) made

# %%exercise pid.spawn_init
def spawn_init(main, namespaces=(Namespace.PID,)):
    pid = clone3(flags(namespaces))
    if pid == 0:
        main()
    return pid
