# attack: makes namespaces, as any of its users, and holds them open, until the host has no more for anybody: they count
#   as those of the sandbox's owner, who is the host's root
# fails: outside, the sandbox's owner is nobody, so the count is its own and not root's; inside there is a limit for
#   each user, and nobody who has the capability to raise it
# status: graded
# says: nothing gained: \d+ namespaces

# %%exercise uts.set_names
import os
import signal

from minicontainer.linux import CLONE_NEWUTS, prctl, unshare

PR_SET_SECUREBITS, NO_SETUID_FIXUP = 28, 4
HOARDERS, MANY = 40, 8000


def hoard(user, tell):
    """As many as can be, then say how many, and keep them."""
    held = []
    try:
        prctl(PR_SET_SECUREBITS, NO_SETUID_FIXUP)  # all capabilities stay, whoever we become
        os.setresuid(user, user, user)
        while True:
            unshare(CLONE_NEWUTS)
            held.append(os.open("/proc/self/ns/uts", os.O_RDONLY))
    except OSError:
        os.write(tell, len(held).to_bytes(4))
        signal.pause()


def set_names(host, domain=None):
    for kind in ("uts", "pid", "mnt"):
        try:
            with open(f"/proc/sys/user/max_{kind}_namespaces", "w") as limit:
                limit.write("1000000")
        except OSError:
            pass
    counted, tell = os.pipe()
    for user in range(HOARDERS):
        if os.fork() == 0:
            hoard(user, tell)
    total = sum(int.from_bytes(os.read(counted, 4)) for _ in range(HOARDERS))
    raise RuntimeError(f"{'gained' if total > MANY else 'nothing gained'}: {total} namespaces")
