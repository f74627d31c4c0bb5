# attack: threads that never end, one of which the function waits for, and which nothing but SIGKILL ends
# fails: the sandbox's process 1 is killed, and with it, by the kernel, every thread of every process of its PID
#   namespace
# status: timeout
# says: endless loop

# %%exercise uts.set_names
import threading


def spin():
    while True:
        pass


def set_names(host, domain=None):
    threads = [threading.Thread(target=spin) for _ in range(8)]
    for thread in threads:
        thread.start()
    threads[0].join()
