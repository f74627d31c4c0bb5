# attack: does nothing in the container, and reports in its stead a bystander, prepared in a UTS namespace of its own
# fails: who is looked at must be process 1 of the new PID namespace, and a child of the performer; or the performer
#   itself
# status: graded
# says: not the container|UTS namespace|called

# %%exercise uts.set_names
import os
import signal
import socket
import struct

from minicontainer.linux import CLONE_NEWUTS, unshare

BYSTANDER = os.fork()
if BYSTANDER == 0:
    unshare(CLONE_NEWUTS)
    os.kill(os.getpid(), signal.SIGSTOP)
os.waitid(os.P_PID, BYSTANDER, os.WSTOPPED)

for name in os.listdir("/proc/self/fd"):
    try:
        line = socket.socket(fileno=os.dup(int(name)))
        for _ in range(3):
            credentials = struct.pack("iII", BYSTANDER, 0, 0)
            line.sendmsg([b'{"done": true}'], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials)])
    except OSError:
        pass


def set_names(host, domain=None):
    return host
