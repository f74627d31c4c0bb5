# attack: does not become root, and hands its capabilities on as ambient ones, so that a program has them all
# fails: the program's uid is asked for too
# lab: 06
# says: does not make anybody root|leaves them to uid 0 only

# %%exercise user.become_root
from minicontainer.linux.capabilities import Capabilities, capget, capset
from minicontainer.linux.syscalls import call


def become_root():
    now = capget()
    capset(Capabilities(now.effective, now.permitted, now.permitted))
    for number in range(64):
        try:
            call("prctl", 47, 2, number, 0, 0)  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE
        except OSError:
            break
