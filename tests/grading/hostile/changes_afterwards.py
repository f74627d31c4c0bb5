# attack: a thread of the container's process 1 changes its UTS namespace and its name again and again, for one look
#   to be lucky
# fails: a namespace is a thread's; it is the process that is looked at, and no look's luck helps in the next check
# status: graded|timeout

# %%exercise uts.set_names
import threading

from minicontainer.linux import CLONE_NEWUTS, sethostname, unshare


def spin(host):
    while True:
        unshare(CLONE_NEWUTS)
        sethostname(host)


def set_names(host, domain=None):
    threading.Thread(target=spin, args=[host], daemon=True).start()
