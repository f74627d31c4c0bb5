# attack: lets a thread leave for a new IPC namespace, which is then in /proc/PID/task, and goes on as before
# fails: a thread has namespaces of its own, and it is the process that is looked at, which is its first thread
# lab: 04
# says: has not left the IPC namespace

# %%exercise ipc.private_queues
import threading


def private_queues():
    thread = threading.Thread(target=lambda: (unshare(CLONE_NEWIPC), threading.Event().wait(60)), daemon=True)
    thread.start()
