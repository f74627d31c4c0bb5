# mutant: counts what happens on each processor, whoever does it
# loses: test_counted_in_the_group, test_every_processor, test_the_event, test_returned
# diagnosis: PERF_FLAG_PID_CGROUP

# %%exercise events.count_events
from minicontainer.linux.cgroups import read
from minicontainer.linux.events import perf_event_open
from minicontainer.steps.events import EVENTS


def count_events(group, event):
    online = [int(word[3:]) for word in read("/proc/stat").split() if word.startswith("cpu") and word != "cpu"]
    return [perf_event_open(EVENTS[event], -1, cpu) for cpu in online]
