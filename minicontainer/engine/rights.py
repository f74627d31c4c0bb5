"""What a container's processes may do, and who they are: from its user's wishes to the runtime's specification.

Hardened unless asked otherwise, as docker hardens: fourteen capabilities, no new privileges, a filter of system calls,
the host's settings and memory out of reach. Each can be changed by itself; `privileged` leaves all of it out.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable

import minicontainer
from minicontainer.engine.errors import EngineError
from minicontainer.linux.capabilities import NAMES, grantable, mask_of
from minicontainer.record import Record
from minicontainer.runtime.spec import MASKED, READONLY, CapabilitySets, Spec, User

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CAPABILITIES = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
    "AUDIT_WRITE"
).split()
"""What root in a container may, since docker began: enough to install packages and to serve on port 80."""

UNCONFINED = "unconfined"

RESOURCES = "AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK".split()
"""Of setrlimit(2), without RLIMIT_."""

MOST_ID = (1 << 32) - 2
"""The last uid and gid; the one after it means "leave it"."""


class Rights(Record):
    """The wishes. Those that nobody has are docker's defaults, but that new privileges are not to be had."""

    privileged: bool = False
    added: tuple[str, ...] = ()
    """Capabilities without CAP_, or ALL."""
    dropped: tuple[str, ...] = ()
    no_new_privileges: bool | None = None
    """None: unless it is privileged."""
    seccomp: str = ""
    """"" is our own profile (for a privileged container, none), "unconfined" none; else the text of a profile."""
    read_only: bool = False
    user: tuple[int, int] = (0, 0)
    groups: tuple[int, ...] = ()
    """Supplementary ones."""
    rlimits: tuple[tuple[str, int, int], ...] = ()
    """(``NOFILE``…, soft, hard); 2**64 - 1 is no limit."""
    oom_score_adj: int | None = None
    sysctls: tuple[tuple[str, str], ...] = ()
    landlock: tuple[tuple[str, str], ...] = ()
    """(path, rights over it): what its programs may reach at all, whoever they are; without any, it is not said."""

    @property
    def capabilities(self) -> tuple[str, ...] | None:
        """Those that its root has, as ``CAP_CHOWN``; None: all that there are."""
        if "ALL" in self.added or (self.privileged and "ALL" not in self.dropped):
            if not set(self.dropped) - {"ALL"}:
                return None
            names = [*NAMES]
        else:
            names = [] if "ALL" in self.dropped else [*CAPABILITIES]
        kept = [name for name in names if name not in self.dropped]
        return tuple(f"CAP_{name}" for name in dict.fromkeys([*kept, *(one for one in self.added if one != "ALL")]))


def check(rights: Rights) -> None:
    """Refuse what cannot be. Raises EngineError."""
    for name in (*rights.added, *rights.dropped):
        if name not in NAMES and name != "ALL":
            raise EngineError(f'there is no capability "{name}": see capabilities(7), and write it as in NET_ADMIN')
    if os.geteuid() == 0:
        missing = [name for name in rights.added if name != "ALL" and not grantable([name])]
        if missing:
            raise EngineError(f"CAP_{missing[0]} cannot be given to a container: this process has not got it itself")
    for number in (*rights.user, *rights.groups):
        if not 0 <= number <= MOST_ID:
            raise EngineError(f"there is no user or group {number}: give a number up to {MOST_ID}")
    for name, soft, hard in rights.rlimits:
        if name not in RESOURCES:
            raise EngineError(f'there is no limit "{name.lower()}"; there are {", ".join(RESOURCES).lower()}')
        if soft > hard:
            raise EngineError(f"the soft limit of {name.lower()}, {soft}, is above the hard one, {hard}")
    if rights.oom_score_adj is not None and not -1000 <= rights.oom_score_adj <= 1000:
        raise EngineError(f"--oom-score-adj {rights.oom_score_adj} cannot be: -1000 (never) to 1000 (first)")
    if rights.landlock:
        _check_landlock(rights)
    if rights.seccomp and rights.seccomp != UNCONFINED:
        profile = _profile(rights.seccomp)
        with _told():
            _compiled(profile, rights)


def _check_landlock(rights: Rights) -> None:
    from minicontainer.linux.landlock import landlock_abi
    from minicontainer.steps.landlock import RIGHTS

    for path, words in rights.landlock:
        if not path.startswith("/"):
            raise EngineError(f'the rule "{path}:{words}" is of no absolute path, as the container has it')
        for word in words.split():
            if word not in RIGHTS:
                raise EngineError(f'"{word}" is no right over {path}; there are {", ".join(RIGHTS)}')
    try:
        landlock_abi()
    except OSError as error:
        raise EngineError(f"this kernel has no Landlock ({error.strerror}); see: minicontainer check") from None


def confined(spec: Spec, rights: Rights, cache: Callable[[str, Callable[[], bytes]], bytes]) -> Spec:
    """The specification with these rights laid over it. `cache` keeps what is made, by a name. Raises EngineError."""
    bounding = rights.capabilities
    sets = None
    if bounding is not None:
        held = bounding if rights.user[0] == 0 else ()  # of an ordinary user's, none are in force; as with docker
        sets = CapabilitySets(bounding=bounding, effective=held, permitted=held)
    asked = rights.no_new_privileges
    process = spec.process.replace(
        user=User(*rights.user, additional_gids=rights.groups),
        capabilities=sets,
        no_new_privileges=not rights.privileged if asked is None else asked,
        rlimits=tuple((f"RLIMIT_{name}", soft, hard) for name, soft, hard in rights.rlimits),
        oom_score_adj=rights.oom_score_adj,
    )
    given: dict[str, Any] = {"process": process, "root_readonly": rights.read_only, "sysctl": rights.sysctls}
    given["landlock"] = rights.landlock
    if not rights.privileged:
        given |= {"masked_paths": MASKED, "readonly_paths": READONLY}
    if rights.seccomp == UNCONFINED or (rights.privileged and not rights.seccomp):
        pass
    elif rights.seccomp:
        given["seccomp"] = _profile(rights.seccomp)
    else:
        given["filter"] = _default_filter(rights, cache)
    return spec.replace(**given)


def _default_filter(rights: Rights, cache: Callable[[str, Callable[[], bytes]], bytes]) -> tuple[bytes, int]:
    """Our own profile, compiled: that takes 2 ms, and importing what compiles it another, so it is kept on disk.

    Under the name of all that it is made from: the files that hold the profile and the compiler, the capabilities, the
    machine, the kernel's release.
    """
    house, kernel = os.path.dirname(minicontainer.__file__), os.uname()
    files = [os.stat(f"{house}/{file}.py") for file in ("runtime/seccomp_default", "steps/seccomp", "linux/numbers")]
    sources = "-".join(f"{file.st_mtime_ns:x}.{file.st_size:x}" for file in files)
    held = "all" if rights.capabilities is None else f"{mask_of(rights.capabilities):x}"

    def compiled() -> bytes:
        from minicontainer.runtime.seccomp_default import PROFILE

        with _told():
            program, flags = _compiled(PROFILE, rights)
        return flags.to_bytes(8, "little") + program

    kept = cache(f"{sources}-{held}-{kernel.machine}-{kernel.release}", compiled)
    return kept[8:], int.from_bytes(kept[:8], "little")


def _compiled(profile: Any, rights: Rights) -> tuple[bytes, int]:
    from minicontainer.linux.capabilities import known
    from minicontainer.steps.seccomp import compile_filter, filter_flags

    held = known() if rights.capabilities is None else rights.capabilities
    return compile_filter(profile, held), filter_flags(profile)


def _profile(text: str) -> dict[str, object]:
    try:
        profile = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EngineError(f"the seccomp profile is no JSON: {error}") from None
    if not isinstance(profile, dict):
        raise EngineError("the seccomp profile is no JSON object, such as docker's default.json")
    return profile


@contextlib.contextmanager
def _told() -> Any:
    try:
        yield
    except ValueError as error:
        raise EngineError(f"this seccomp profile cannot be used: {error}; see --security-opt seccomp=FILE") from None
