# mutant: names first, unshares afterwards: the namespace is right, and so is the name in it, but the host was renamed
# loses: test_host_keeps_its_name
# diagnosis: renamed the host, from ".*" to ".*": .* unshare\(CLONE_NEWUTS\) must come before

# %%exercise uts.set_names
def set_names(host, domain=None):
    sethostname(host)
    if domain is not None:
        setdomainname(domain)
    unshare(CLONE_NEWUTS)
