# mutant: without a domain, resets the domain name to what a machine without one shows
# loses: test_inherited_domain_name
# diagnosis: changed the domain name from ".*" to "\(none\)": .* with `domain` None leave it alone

# %%exercise uts.set_names
def set_names(host, domain=None):
    unshare(CLONE_NEWUTS)
    sethostname(host)
    setdomainname(domain or "(none)")
