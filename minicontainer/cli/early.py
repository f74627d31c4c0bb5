"""What takes the kernel ten milliseconds, begun before our imports, which take as long.

Moving a process to another control group waits for an RCU grace period: until every processor has been seen outside of
the kernel's read sides (`cgroup_threadgroup_rwsem` in kernel/cgroup/cgroup.c). Who comes soon after another move need
not wait again. So, while Python imports the rest of us, a thread moves this process to the group that it is in already:
that changes nothing, and the move that counts, of a container's process 1, finds the wait done.
"""

import _thread
import os

COMMANDS = frozenset({"run", "start"})
"""Those after which a container is started."""

_done = _thread.allocate_lock()


def begin(words: list[str]) -> None:
    """Begin, if one of the words of the command line is the name of a command that will need it."""
    if COMMANDS.isdisjoint(words) or os.geteuid() != 0:
        return
    try:
        for fd in (0, 1, 2):
            os.fstat(fd)
    except OSError:
        return  # closed by our caller: what we open would get its number, and be taken for a standard file
    _done.acquire()
    try:
        _thread.start_new_thread(_move_to_where_we_are, ())
    except RuntimeError:  # no thread to be had; then the container waits
        _done.release()


def wait() -> None:
    """Return when that is over and its thread is gone: from here on, this process may be copied by clone(2)."""
    _done.acquire()
    _done.release()
    while len(os.listdir("/proc/self/task")) > 1:  # it ends some moments after its last line
        os.sched_yield()


def _move_to_where_we_are() -> None:
    """In the first v1 tree that there is: the wait is for all trees. v2 has a way without it, CLONE_INTO_CGROUP."""
    try:
        with open("/proc/self/cgroup") as groups, open("/proc/self/mountinfo") as mounts:
            own = {name: path for _, name, path in (line.rstrip("\n").split(":", 2) for line in groups)}
            for line in mounts:
                _, _, _, top, mountpoint = line.split(" ")[:5]
                fstype, _, options = line.partition(" - ")[2].split()[:3]
                path = own.get(options.removeprefix("rw,"))
                if fstype == "cgroup" and top == "/" and path:
                    with open(f"{mountpoint}{path}/cgroup.procs", "w") as procs:
                        procs.write("0")
                    break
    except OSError:
        pass  # then the container waits
    finally:
        _done.release()
