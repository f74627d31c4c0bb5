# mutant: never sets the domain name
# loses: test_domain_name
# diagnosis: setdomainname\(\) was not called with it

# %%exercise uts.set_names
def set_names(host, domain=None):
    unshare(CLONE_NEWUTS)
    sethostname(host)
