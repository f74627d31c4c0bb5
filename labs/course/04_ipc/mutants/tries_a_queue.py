# mutant: tries whether it works, and leaves the queue that it tried with behind
# loses: test_queues
# diagnosis: queues are in the new namespace that nobody but your code can have put there: test

# %%exercise ipc.private_queues
from minicontainer.linux.ipc import mq_open


def private_queues():
    unshare(CLONE_NEWIPC)
    os.close(mq_open("/test", os.O_RDWR | os.O_CREAT))
