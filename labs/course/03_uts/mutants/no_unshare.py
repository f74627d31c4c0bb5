# mutant: sets the names in whatever namespace the process is in
# loses: test_own_namespace, test_host_keeps_its_name, test_nothing_else
# diagnosis: unshare\(CLONE_NEWUTS\) was not called|renamed the host, from ".*" to ".*"|no merit

# %%exercise uts.set_names
def set_names(host, domain=None):
    sethostname(host)
    if domain is not None:
        setdomainname(domain)
