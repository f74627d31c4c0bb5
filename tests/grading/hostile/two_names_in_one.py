# attack: saves setdomainname(2): puts a line feed and the domain into the host name, for whoever reads the two line
#   by line
# fails: the names are read apart; this host name is not the one that was asked for where there is a domain, and the
#   domain is not set
# points: 6|7|8|9
# status: graded
# says: domain

# %%exercise uts.set_names
from minicontainer.linux import CLONE_NEWUTS, sethostname, unshare


def set_names(host, domain=None):
    unshare(CLONE_NEWUTS)
    sethostname(host if domain is None else f"{host}\n{domain}")
