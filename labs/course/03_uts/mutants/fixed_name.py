# mutant: a name that was right in the example
# loses: test_host_name
# diagnosis: is it the argument `host` that is set\?

# %%exercise uts.set_names
def set_names(host, domain=None):
    unshare(CLONE_NEWUTS)
    sethostname("alpha")
    if domain is not None:
        setdomainname(domain)
