# attack: asks for errands without end, and in another exercise without ever listening to the answers
# fails: a check has one deadline, errands and all; the examiner never waits for room on a line
# status: graded|timeout
# says: it asked for one device rule or counter after the other

# %%exercise devices.allow_devices
import json
import socket
import sys

line = sys.modules["__main__"].Performer.current.line
WORDS = json.dumps({"errand": {"call": "count", "group": "mine", "event": [1, 2], "cpu": 0}}).encode()


def allow_devices(group, rules):
    while True:
        line.send(WORDS)
        socket.recv_fds(line, 1 << 16, 4)


# %%exercise io.limit_io
def limit_io(group, device, **rates):
    while True:
        line.send(WORDS)
