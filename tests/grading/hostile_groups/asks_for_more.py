# attack: has the examiner's errands done by hand: groups with "..", absolute paths, its own group's limits, control
#   files other than those of devices, two rules in one, programs that call the kernel, events of whole processors
# fails: an errand names a group below its own in letters and digits, and has three forms; everything else is refused
# status: graded
# says: gained nothing

# %%exercise pids.limit_pids
import json
import os
import socket
import sys

line = sys.modules["__main__"].Performer.current.line

GROUPS = [
    "",
    ".",
    "..",
    "../..",
    "/",
    "mine/../..",
    "../labs-1-0",
    "/sys/fs/cgroup/devices",
    "mine\n",
    "mine\0",
    7,
    None,
    [],
    {},
]
FILES = [
    "devices.list",
    "cgroup.procs",
    "pids.max",
    "memory.limit_in_bytes",
    "memory.max",
    "release_agent",
    "../cgroup.procs",
]


def ask(request):
    line.send(json.dumps({"errand": request}).encode())
    data, fds, _, _ = socket.recv_fds(line, 1 << 16, 4)
    for fd in fds:
        os.close(fd)
    return json.loads(data)["errno"]


def limit_pids(group, most):
    requests = [None, 7, [], {}, "write", {"call": []}, {"call": "count", "group": group.name, "event": [0], "cpu": 0}]
    requests += [{"call": "write", "group": name, "file": "devices.allow", "value": "a"} for name in GROUPS]
    requests += [{"call": "write", "group": group.name, "file": file, "value": "-1"} for file in FILES]
    rules = ("a\n", "c 1:3 r\nc 1:5 r", "", None, "x" * 50000)
    requests += [{"call": "write", "group": group.name, "file": "devices.allow", "value": rule} for rule in rules]
    codes = (
        "85000000010000009500000000000000",
        "18" + "00" * 15,
        "7baaf8ff00000000",
        "zz",
        "95",
        95,
        None,
        "00" * 32000,
    )
    requests += [{"call": "program", "group": group.name, "code": code} for code in codes]
    events = ([2, 1], [4, 0], [5, 0], [1, 99], [1.0, 2.0], ["1", "2"], None, [1, 1 << 70], [[], []])
    requests += [{"call": "count", "group": group.name, "event": event, "cpu": 0} for event in events]
    requests += [
        {"call": "count", "group": group.name, "event": [1, 2], "cpu": cpu} for cpu in (-1, 1 << 40, 1e308, "0", None)
    ]
    requests += [{"call": "count", "group": name, "event": [1, 2], "cpu": 0} for name in GROUPS]
    gained = [request for request in requests if ask(request) == 0]
    raise RuntimeError(f"gained {gained}" if gained else "gained nothing")
