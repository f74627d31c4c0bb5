# attack: stays where it is, and makes queues until there is no room for one more, so that no check can make its own
# fails: the limit is that of the user namespace; whoever has used it up is told so, and has no points
# lab: 04
# says: is in it still|cannot make or find anything

# %%exercise ipc.private_queues
from minicontainer.linux.ipc import mq_open


def private_queues():
    for number in range(10_000):
        try:
            os.close(mq_open(f"/{number}", os.O_RDWR | os.O_CREAT))
        except OSError:
            break
