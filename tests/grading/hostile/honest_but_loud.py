# attack: right, and ill-mannered: prints a lot, leaves a child and an exit handler behind, patches what it can
# fails: nothing: it does what was asked, and everything else stays in the sandbox
# points: 10
# status: graded

# %%exercise uts.set_names
import atexit
import os
import signal

from minicontainer.linux import CLONE_NEWUTS, setdomainname, sethostname, unshare

atexit.register(os.abort)
if os.fork() == 0:
    signal.pause()


def set_names(host, domain=None):
    print("x" * 10_000_000)
    unshare(CLONE_NEWUTS)
    sethostname(host)
    if domain is not None:
        setdomainname(domain)
