# attack: stays where it is, and has a process that removes every segment and every queue that turns up
# fails: what those outside had is gone then, and the link of the namespace is the old one all the time
# lab: 04
# says: is gone or was changed|is in it still

# %%exercise ipc.private_queues
from minicontainer.linux.ipc import mq_unlink, shmrm


def private_queues():
    if os.fork():
        return
    os.closerange(3, 1024)  # else the birth of a container would wait for it
    os.makedirs("/run/queues", exist_ok=True)
    mount("mqueue", "/run/queues", "mqueue")
    while True:
        with open("/proc/sysvipc/shm") as lines:
            for line in list(lines)[1:]:
                shmrm(int(line.split()[1]))
        for name in os.listdir("/run/queues"):
            mq_unlink(name)
