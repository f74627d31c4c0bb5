# attack: right without a domain; with one, it loops for ever
# fails: it keeps the points of the checks that were over before, and loses those that it hung in or that were not run
#   after that
# points: 5
# status: timeout
# says: endless loop

# %%exercise uts.set_names
from minicontainer.linux import CLONE_NEWUTS, sethostname, unshare


def set_names(host, domain=None):
    unshare(CLONE_NEWUTS)
    sethostname(host)
    while domain is not None:
        pass
