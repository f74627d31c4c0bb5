# attack: lets a child be root, and answers for it
# fails: the pid of a message is the kernel's word, and the process that was told to call is the one that is looked at
# lab: 06
# says: has not changed|leaves them to uid 0 only|not become root|ended

# %%exercise user.become_root
import signal
import sys

performer = sys.modules["__main__"].Performer
honest = performer.answer


def become_root():
    child = os.fork()
    if child == 0:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        signal.pause()
        os._exit(0)
    performer.answer = lambda self, message, pid: honest(self, message, child)
