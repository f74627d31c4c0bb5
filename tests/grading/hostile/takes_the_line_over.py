# attack: takes the line of the sandbox's process 1 with pidfd_getfd(2), reads the examiner's requests and answers
#   them all itself
# fails: an answer is worth nothing: there is no container behind it that the kernel would vouch for
# status: graded|timeout

# %%exercise uts.set_names
import ctypes
import json
import os
import socket
import struct

PIDFD_GETFD = 438

if os.fork() == 0:
    os.setsid()
    line = ctypes.CDLL(None).syscall(PIDFD_GETFD, os.pidfd_open(1), 3, 0)
    if line < 0:
        os._exit(1)
    examiner = socket.socket(fileno=line)
    while True:
        data, fds, _, _ = socket.recv_fds(examiner, 1 << 16, 8)
        if not data:
            os._exit(0)
        for fd in fds:
            answer = json.dumps({"done": True, "sound": True}).encode()
            credentials = struct.pack("iII", os.getpid(), 0, 0)
            socket.socket(fileno=fd).sendmsg([answer], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials)])


def set_names(host, domain=None):
    return host
