# mutant: closes the counters before it returns
# loses: test_counted_in_the_group, test_every_processor, test_the_event, test_returned
# diagnosis: no counter open

# %%exercise events.count_events
from minicontainer.linux.cgroups import read
from minicontainer.linux.events import PERF_FLAG_PID_CGROUP, perf_event_open
from minicontainer.steps.events import EVENTS


def count_events(group, event):
    _, directory = group["perf_event"]
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    online = [int(word[3:]) for word in read("/proc/stat").split() if word.startswith("cpu") and word != "cpu"]
    counters = [perf_event_open(EVENTS[event], fd, cpu, PERF_FLAG_PID_CGROUP) for cpu in online]
    for counter in counters:
        os.close(counter)
    return counters
