# mutant: counts in the group above
# loses: test_counted_in_the_group, test_every_processor, test_the_event, test_returned
# diagnosis: the counters are of another group|EINVAL

# %%exercise events.count_events
from minicontainer.linux.cgroups import read
from minicontainer.linux.events import PERF_FLAG_PID_CGROUP, perf_event_open
from minicontainer.steps.events import EVENTS


def count_events(group, event):
    _, directory = group["perf_event"]
    fd = os.open(os.path.dirname(directory), os.O_RDONLY | os.O_DIRECTORY)
    online = [int(word[3:]) for word in read("/proc/stat").split() if word.startswith("cpu") and word != "cpu"]
    return [perf_event_open(EVENTS[event], fd, cpu, PERF_FLAG_PID_CGROUP) for cpu in online]
