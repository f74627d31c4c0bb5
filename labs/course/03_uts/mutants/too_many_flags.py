# mutant: unshares more than was asked for
# loses: test_nothing_else
# diagnosis: has left its namespaces of the kind mnt, ipc: unshare\(\) was given more flags than CLONE_NEWUTS

# %%exercise uts.set_names
def set_names(host, domain=None):
    unshare(CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNS)
    sethostname(host)
    if domain is not None:
        setdomainname(domain)
