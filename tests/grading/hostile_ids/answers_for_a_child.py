# attack: lets a child do it, and reports the child in the place of itself
# fails: the kernel says who sends a message and whose child the reported process is; another one is a forgery
# lab: 04
# says: forged the report

# %%exercise ipc.private_queues
import signal
import sys

performer = sys.modules["__main__"].Performer
honest = performer.answer


def private_queues():
    child = os.fork()
    if child == 0:
        os.closerange(3, 1024)  # else the birth of a container would wait for it
        unshare(CLONE_NEWIPC)
        signal.pause()
        os._exit(0)
    performer.answer = lambda self, message, pid: honest(self, message, child)
