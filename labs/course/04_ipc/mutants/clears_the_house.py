# mutant: removes what is there, so that the new namespace is surely empty: but it is that of the others
# loses: test_outside_keeps_its_own
# diagnosis: gone or was changed when your function was called: .* it does not clear the house

# %%exercise ipc.private_queues
from minicontainer.linux.ipc import shmrm


def private_queues():
    with open("/proc/sysvipc/shm") as lines:
        for line in list(lines)[1:]:
            shmrm(int(line.split()[1]))
    unshare(CLONE_NEWIPC)
