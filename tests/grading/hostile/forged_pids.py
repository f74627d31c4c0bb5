# attack: answers for the sandbox, each time with another pid in the credentials: process 1, itself, a zombie, one
#   that is not there
# fails: the kernel translates only pids of this sandbox, and none of these has a UTS namespace of its own
# status: graded
# says: UTS namespace|ended|not there|not the container

# %%exercise uts.set_names
import json
import os
import socket
import struct

ZOMBIE = os.fork()
if ZOMBIE == 0:
    os._exit(0)
os.waitid(os.P_PID, ZOMBIE, os.WEXITED | os.WNOWAIT)
PIDS = [1, os.getpid(), ZOMBIE, 0, 2, 77_777]
ANSWER = json.dumps(
    {"done": True, "verdict": "pass", "points": 10, "seen": "all is well", "evidence": ["all is well"]}
).encode()

for name in os.listdir("/proc/self/fd"):
    pid = PIDS[os.urandom(1)[0] % len(PIDS)]
    try:
        line = socket.socket(fileno=os.dup(int(name)))
        line.sendmsg([ANSWER], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("iII", pid, 0, 0))])
    except OSError:
        pass


def set_names(host, domain=None):
    return host
