"""What a container is confined with by itself: system call filters, capabilities, keys."""

from __future__ import annotations

import errno
import os

from minicontainer.engine.host.finding import Finding, content
from minicontainer.engine.host.kernel import build_with, named
from minicontainer.engine.host.probing import attempt
from minicontainer.linux import PR_SET_NO_NEW_PRIVS, join_session_keyring, prctl, seccomp
from minicontainer.linux.capabilities import NAMES, PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, in_bounding_set
from minicontainer.linux.syscalls import call

ACTIONS = {
    "kill_process": seccomp.SECCOMP_RET_KILL_PROCESS, "kill_thread": seccomp.SECCOMP_RET_KILL_THREAD,
    "trap": seccomp.SECCOMP_RET_TRAP, "errno": seccomp.SECCOMP_RET_ERRNO,
    "user_notif": seccomp.SECCOMP_RET_USER_NOTIF, "trace": seccomp.SECCOMP_RET_TRACE, "log": seccomp.SECCOMP_RET_LOG,
    "allow": seccomp.SECCOMP_RET_ALLOW,
}  # fmt: skip


def of_hardening() -> list[Finding]:
    """The findings about filters, capabilities and keys."""
    return [_filters(), _actions(), _capabilities(), _no_new_privileges(), _keyrings()]


def _filters() -> Finding:
    """A filter that refuses a harmless call is loaded, and the call made."""
    error, said = attempt(_refuse_getpriority)
    mend = build_with(("SECCOMP", "SECCOMP_FILTER")) + ", not below a filter that refuses seccomp(2)"
    shows = "loaded one that refuses a call" if error == 0 else said
    return Finding("seccomp filters", error == 0, shows, mend, True, named(("SECCOMP", "SECCOMP_FILTER")))


def _refuse_getpriority() -> None:
    from minicontainer.linux.numbers import numbers_of

    number = numbers_of(os.uname().machine)["getpriority"]
    program = (
        seccomp.BPF_STMT(seccomp.BPF_LD_W_ABS, seccomp.NR),
        seccomp.BPF_JUMP(seccomp.BPF_JEQ_K, number, 0, 1),
        seccomp.BPF_STMT(seccomp.BPF_RET_K, seccomp.SECCOMP_RET_ERRNO | errno.EXDEV),
        seccomp.BPF_STMT(seccomp.BPF_RET_K, seccomp.SECCOMP_RET_ALLOW),
    )
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    seccomp.seccomp(seccomp.SECCOMP_SET_MODE_FILTER, 0, b"".join(program))
    try:
        os.getpriority(os.PRIO_PROCESS, 0)
    except OSError as refused:
        if refused.errno != errno.EXDEV:
            raise
    else:
        raise RuntimeError("a filter was loaded, and filters nothing")


def _actions() -> Finding:
    """SECCOMP_GET_ACTION_AVAIL, Linux 4.14."""
    import struct

    def act() -> str:
        known = []
        for name, action in ACTIONS.items():
            try:
                seccomp.seccomp(seccomp.SECCOMP_GET_ACTION_AVAIL, 0, struct.pack("=I", action))
                known.append(name)
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
        return " ".join(known)

    error, said = attempt(act)
    missing = [name for name in ACTIONS if name not in said.split()]
    shows = said if error or not missing else f"{' and '.join(missing)} not known; {said}"
    mend = "run Linux 5.0 or newer: errno and kill work meanwhile"
    return Finding("seccomp actions", error == 0 and not missing, shows, mend, options=named(("SECCOMP_FILTER",)))


def _capabilities() -> Finding:
    """Which can be handed on: what the bounding set lacks, no container can have."""
    error, said = attempt(_bounding_set)
    if error:
        return Finding("capabilities", False, said, "run Linux 4.3 or newer, for ambient capabilities")
    known, *lacking = said.split()
    shows = f"{int(known) - len(lacking)} of {known}, and ambient ones"
    if lacking and os.geteuid() == 0:
        shows += f"; not to be had in a container: {' '.join(lacking)}"
    return Finding("capabilities", True, shows)


def _bounding_set() -> str:
    """How many capabilities this kernel has, and those that are not in the bounding set."""
    call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, 0, 0, 0)
    state = {name: in_bounding_set(number) for number, name in enumerate(NAMES)}
    known = [name for name, held in state.items() if held is not None]
    return " ".join([str(len(known)), *(f"CAP_{name}" for name in known if not state[name])])


def _no_new_privileges() -> Finding:
    error, said = attempt(lambda: prctl(PR_SET_NO_NEW_PRIVS, 1))
    shows = "setuid programs give nothing in a container" if error == 0 else said
    return Finding("no_new_privs", error == 0, shows, "run Linux 3.5 or newer", required=True)


def _keyrings() -> Finding:
    feature, options = "session keyrings", named(("KEYS",))
    error, said = attempt(join_session_keyring)
    if error == 0:
        room = content("/proc/sys/kernel/keys/root_maxkeys" if os.geteuid() == 0 else "/proc/sys/kernel/keys/maxkeys")
        shows = "a container has its own" + (f"; {room} keys of this user at most" if room else "")
        return Finding(feature, True, shows, options=options)
    mend = {
        errno.EDQUOT: "as root: sysctl kernel.keys.root_maxkeys=1000000 kernel.keys.maxkeys=2000",
        errno.ENOSYS: build_with(("KEYS",)),
    }
    return Finding(
        feature, False, said, mend.get(error, "a seccomp filter refuses it: nothing is hidden by one"), options=options
    )
