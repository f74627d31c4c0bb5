# attack: writes garbage on the examiner's line: no JSON, JSON without end, half a letter, a list, nothing, numbers
#   without bounds
# fails: what does not parse as an object within 64 KiB is no answer, and whoever gets no answer gives no points
# status: graded
# says: no answer|memory|ended

# %%exercise uts.set_names
import os
import socket

GARBAGE = [b"\xff\xfe", b"[" * 60_000, b"null", b'"done"', b'{"done": ' + b"9" * 60_000, b"", b'{"done": "yes"}']

for name in os.listdir("/proc/self/fd"):
    try:
        line = socket.socket(fileno=os.dup(int(name)))
        for piece in GARBAGE:
            line.send(piece, socket.MSG_DONTWAIT)
    except OSError:
        pass


def set_names(host, domain=None):
    return host
