# mutant: does everything right in a child process, whose namespaces are not its parent's
# loses: test_own_namespace, test_host_name, test_domain_name, test_host_keeps_its_name, test_inherited_domain_name, test_nothing_else
# diagnosis: unshare\(CLONE_NEWUTS\) was not called|or was called somewhere else|setdomainname\(\) was not called|no merit

# %%exercise uts.set_names
def set_names(host, domain=None):
    pid = os.fork()
    if pid == 0:
        unshare(CLONE_NEWUTS)
        sethostname(host)
        if domain is not None:
            setdomainname(domain)
        os._exit(0)
    os.waitpid(pid, 0)
