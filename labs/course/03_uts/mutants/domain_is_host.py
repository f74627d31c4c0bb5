# mutant: a slip of the pen: the host name twice
# loses: test_domain_name
# diagnosis: setdomainname\(\) was given `host`, not `domain`

# %%exercise uts.set_names
def set_names(host, domain=None):
    unshare(CLONE_NEWUTS)
    sethostname(host)
    if domain is not None:
        setdomainname(host)
