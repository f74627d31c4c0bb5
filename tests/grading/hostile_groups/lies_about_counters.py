# attack: returns what look like counters: of its own process, of another group that it keeps busy, and numbers of nothing
# fails: the examiner takes the counters out of the process, and reads them itself while it does something in the group
# points: 0
# status: graded

# %%exercise events.count_events
import os

from minicontainer.linux.events import PERF_FLAG_PID_CGROUP, perf_event_open
from minicontainer.steps.group import create_group, enter_group


def count_events(group, event):
    if event == "context-switches":
        return list(range(3, 60))
    other = create_group("busy", ["perf_event"])
    if os.fork() == 0:
        enter_group(other, os.getpid())
        while True:
            os.close(os.open("/proc/self/status", os.O_RDONLY))
            bytearray(1 << 20)
    fd = os.open(other["perf_event"][1], os.O_RDONLY)
    return [perf_event_open((1, 2), fd, cpu, PERF_FLAG_PID_CGROUP) for cpu in range(os.cpu_count())] + [0]
