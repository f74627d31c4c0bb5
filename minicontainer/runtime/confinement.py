"""The last things before a program is executed: what it may use, who it is, and what it may do.

Here and nowhere else, for process 1 and for whatever joins it later. The order matters more than anywhere: each of
these steps takes away what an earlier one still needed.
"""

from __future__ import annotations

import contextlib
import os

from minicontainer.runtime.spec import Process, Spec
from minicontainer.steps import Steps

SECCOMP_FILTER_FLAG_NEW_LISTENER = 8  # of minicontainer.linux.seccomp, which most containers can do without

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

INSIDE = (
    "hide_process schedule set_rlimits forbid_new_privileges limit_bounding keep_capabilities become_user "
    "set_capabilities filter_syscalls"
).split()
"""The steps that are taken where the host's files are out of reach."""


def tune(process: Process, spec: Spec, steps: Steps) -> None:
    """What is told to the kernel through /proc, or is inherited anyway: by whoever still sees the host's /proc.

    The container's own is not asked: who made the image may have put something else there (CVE-2025-52881).
    """
    if process.oom_score_adj is not None:
        steps.set_oom_score(process.oom_score_adj)
    if spec.personality:
        steps.set_personality(spec.personality)
    if spec.memory_policy:
        steps.set_memory_policy(spec.memory_policy.mode, spec.memory_policy.nodes, spec.memory_policy.flags)
    if process.io_priority is not None:
        steps.set_io_priority(*process.io_priority)
    if process.apparmor_profile or process.selinux_label:
        steps.label_exec(process.apparmor_profile, process.selinux_label)


def set_sysctls(spec: Spec, steps: Steps) -> None:
    """Likewise, for the whole container: the kernel's settings in namespaces that are the container's own."""
    if spec.sysctl:
        steps.set_sysctls(dict(spec.sysctl), spec.namespaces | {kind for kind, _ in spec.joined})


def confine(
    process: Process, steps: Steps, filter: tuple[bytes, int] | None, landlock: Sequence[tuple[str, str]] = ()
) -> tuple[Callable[[], object] | None, int | None]:
    """Everything; but a filter of system calls, where it can wait until the very last moment, is returned for then.

    With `no_new_privileges` anybody may load one. Without, only who has CAP_SYS_ADMIN, so it is loaded in the middle,
    and must allow what comes after it. What a filter has to ask somebody for is asked through a listener, a file
    descriptor, the second that is returned: it has to be handed over before we are alone. Raises OSError.
    """
    if process.scheduler is not None:  # here, after the last fork of ours: SCHED_DEADLINE allows none
        one = process.scheduler
        steps.schedule(one.policy, one.nice, one.priority, one.flags, one.runtime, one.deadline, one.period)
    steps.set_rlimits(process.rlimits)
    last: Callable[[], object] | None = None
    listener: int | None = None
    if process.no_new_privileges:
        steps.forbid_new_privileges()
    elif filter is not None:
        listener = steps.filter_syscalls(*filter)

    arrived = _enter(process.cwd)
    capabilities = process.capabilities
    if capabilities is not None:
        steps.limit_bounding(capabilities.bounding)
        steps.keep_capabilities()
    user = process.user
    steps.become_user(user.uid, user.gid, user.additional_gids, user.umask)
    if not arrived:  # a directory that is the user's alone, on a file system that does not know root
        _enter(process.cwd, again=True)
    _stay_inside(process.cwd)
    if capabilities is not None:
        steps.set_capabilities(
            capabilities.effective, capabilities.permitted, capabilities.inheritable, capabilities.ambient
        )
    if landlock:  # the last that opens a file or, in a mount namespace, could mount one
        _restrict(dict(landlock), steps)
    if filter is not None and process.no_new_privileges:
        if filter[1] & SECCOMP_FILTER_FLAG_NEW_LISTENER:
            listener = steps.filter_syscalls(*filter)
        else:
            last = lambda: steps.filter_syscalls(*filter)  # noqa: E731
    return last, listener


def with_home(process: Process) -> Process:
    """The same, with HOME from the container's own /etc/passwd, if it is not said; "/" for whom that does not know."""
    if any(item.startswith("HOME=") for item in process.env):
        return process
    home = "/"
    with contextlib.suppress(OSError), open("/etc/passwd", "rb") as passwd:
        for line in passwd:
            fields = line.decode(errors="surrogateescape").rstrip("\n").split(":")
            if len(fields) >= 6 and fields[2] == str(process.user.uid):
                home = fields[5] or "/"
                break
    return process.replace(env=(*process.env, f"HOME={home}"))


def _restrict(rules: dict[str, str], steps: Steps) -> None:
    """Hold ourselves to the rules; what every program needs, its terminal and what tells it of itself, goes without
    saying."""
    for path, rights in (("/dev", "read write ioctl"), ("/proc", "read")):
        if os.path.isdir(path):
            rules.setdefault(path, rights)
    steps.restrict_paths(rules)


def _enter(directory: str, *, again: bool = False) -> bool:
    try:
        os.chdir(directory)
    except PermissionError as error:
        if not again:
            return False
        raise _no_directory(error, directory) from None
    except OSError as error:
        raise _no_directory(error, directory) from None
    return True


def _no_directory(error: OSError, directory: str) -> OSError:
    reason = f"chdir to the working directory {directory}: {error.strerror}"
    return OSError(error.errno, f"{reason} in the container; choose another with --workdir")


def _stay_inside(directory: str) -> None:
    """See that the working directory is in the container: one like /proc/self/fd/7 would be what we had open there,
    and ".." goes on from it to the host's root (CVE-2024-21626). The kernel does not know its path then."""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        here = ""
    except OSError:
        return  # a filter that refuses getcwd(2); it is the configuration's, not the image's
    if not here.startswith("/"):
        raise PermissionError(1, f"the working directory {directory} leads out of the container")
