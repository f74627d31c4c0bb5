"""A bundle, the directory that an OCI runtime is given: config.json, and most times the root file system beside it.

https://github.com/opencontainers/runtime-spec/blob/v1.2.0/bundle.md. Whatever is wrong with it is said before anything
of the container is made: `load` reads the document, `specification` checks it, `open_namespace` what it points at.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from minicontainer.linux import Namespace
from minicontainer.runtime import config, expect
from minicontainer.runtime.errors import BundleError
from minicontainer.runtime.spec import DEFAULT_PATH, MASKED, OCI_VERSION, READONLY, Directory, Process, Spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CONFIG = "config.json"
LONGEST_ID = 1024


def load(bundle: str, file: str | None = None) -> dict[str, Any]:
    """The bundle's config.json as it stands there, or another `file`, by a path from the bundle on.

    Raises BundleError: it is not there, or is no JSON object.
    """
    if not os.path.isdir(bundle):
        raise BundleError(f"bundle {expect.named(bundle)}: there is no such directory")
    return expect.read(os.path.join(bundle, file or CONFIG), os.path.basename(file or CONFIG)).as_object()


def specification(document: Mapping[str, Any], bundle: str, container_id: str, *, exists: bool = True) -> Spec:
    """What `document` says, for a container of this id.

    `exists`: look at this host as well, whether what is needed is there; not for a container that has been made, whose
    root may have been taken away since. Raises BundleError.
    """
    check_id(container_id)
    bundle = os.path.realpath(bundle)
    spec = config.read_spec(expect.Value(document, CONFIG), bundle, container_id)
    if exists:
        spec = spec.replace(root=_root(spec))
        _look_at_host(spec)
    return spec


def load_process(file: str) -> tuple[Process, Sequence[str]]:
    """The program that a file describes, a `process` by itself (runc exec --process), and warnings. BundleError."""
    warnings = list[str]()
    with open(file, "rb") as opened:  # which may be a pipe, from a shell's <(…)
        document = expect.parse(opened.read(), os.path.basename(file))
    return config.read_process(document, warnings), warnings


def check_id(container_id: str) -> None:
    """Refuse an id that cannot be the name of a directory, or would be a surprise as one. Raises BundleError."""
    shown = expect.shown(container_id)
    if not container_id:
        raise BundleError("invalid container ID: it is empty")
    plain = "".join(letter for letter in container_id if letter.isascii() and (letter.isalnum() or letter in "_+-."))
    if plain != container_id:
        wrong = next(letter for letter in container_id if letter not in plain)
        letter = f"`{wrong}`" if wrong.isascii() and wrong.isprintable() else expect.shown(wrong)
        raise BundleError(
            f"invalid character {letter} in the ID: a container ID is made of letters, digits and _+-., not {shown}"
        )
    if container_id.startswith((".", "-")):
        raise BundleError(f"invalid container ID {shown}: it must not begin with {container_id[0]}")
    if len(container_id) > LONGEST_ID:
        raise BundleError(f"invalid container ID {shown}: it is longer than {LONGEST_ID} characters")


def open_namespace(kind: Namespace, path: str) -> int:
    """A file descriptor of the namespace at `path`, for setns(2). Raises BundleError: it is none of this kind.

    It is looked at before it is opened: opening a FIFO, or a device, can wait or do things. All namespaces are files of
    one file system, nsfs; one that is mounted somewhere, as ip-netns(8) and podman do, has no such link for its name.
    """
    name, found = kind.name.lower(), None
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if os.fstat(place).st_dev == os.stat("/proc/self/ns/mnt").st_dev:
                namespace = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC)
                if (found := Namespace.of(namespace)) is kind:
                    return namespace
                os.close(namespace)
        finally:
            os.close(place)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise BundleError(f"the {name} namespace {expect.named(path)}: {why}") from None
    what = f"it is one of kind {found.name.lower()}" if found else "it is no namespace at all"
    raise BundleError(f"the {name} namespace {expect.named(path)}: {what}")


def _root(spec: Spec) -> Directory:
    """The root file system, all links on the way to it followed."""
    assert isinstance(spec.root, Directory)
    path = spec.root.path
    try:
        os.stat(path)
    except OSError as error:
        raise BundleError(f"{CONFIG}: root.path: {expect.named(path)}: {error.strerror}") from None
    if not os.path.isdir(path):
        raise BundleError(f"{CONFIG}: root.path: {expect.named(path)}: Not a directory")
    return Directory(os.path.realpath(path))


def _look_at_host(spec: Spec) -> None:
    """What no text says: what this machine has, and what a path of a namespace leads to."""
    if spec.intel_rdt is not None:  # as `features` says
        raise BundleError(f"{CONFIG}: linux.intelRdt: unsupported here: this runtime makes no groups of resctrl")
    for kind, path in spec.joined:
        os.close(open_namespace(kind, path))
        own = os.path.samefile(path, f"/proc/self/ns/{kind.proc_name}")
        tops = {Namespace.NETWORK: ("net/",), Namespace.USER: ("user/",), Namespace.UTS: ("kernel/domainname",),
                Namespace.IPC: ("fs/mqueue/", "kernel/msg", "kernel/sem", "kernel/shm")}.get(kind)  # fmt: skip
        for file, _ in spec.sysctl if own and tops else ():
            if file.startswith(tops or ()):
                raise BundleError(
                    f"{CONFIG}: linux.sysctl: {file} would change the host's: {path} is our own namespace"
                )


def default_config(rootless: bool = False, cgroup_namespace: bool = True) -> dict[str, Any]:
    """A config.json to begin with: a shell in ``rootfs``, hardened as docker hardens what it starts.

    `rootless`: for a user who is not root, and is root inside, of a user namespace with just that one id.
    `cgroup_namespace`: with one of its own.
    """
    capabilities = [
        f"CAP_{name}"
        for name in "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID "
        "SETPCAP SETUID SYS_CHROOT".split()
    ]
    strict = ["nosuid", "noexec", "nodev"]
    mounts = [
        ("/proc", "proc", "proc", strict),
        ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        ("/dev/shm", "tmpfs", "shm", [*strict, "mode=1777", "size=65536k"]),
        ("/dev/mqueue", "mqueue", "mqueue", strict),
        ("/sys", "sysfs", "sysfs", [*strict, "ro"]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", [*strict, "relatime", "ro"]),
    ]
    if not rootless:
        mounts[2][3].append("gid=5")  # the group tty; with one id only there is no such group
    namespaces = ["pid", "network", "ipc", "uts", "mount", *(["cgroup"] if cgroup_namespace else [])]
    linux: dict[str, Any] = {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [{"type": kind} for kind in namespaces],
        "maskedPaths": list(MASKED),
        "readonlyPaths": list(READONLY),
    }  # fmt: skip
    if rootless:
        linux["namespaces"].append({"type": "user"})
        linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
        del linux["resources"]  # control groups are not ours to limit, unless somebody delegated one
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [f"PATH={DEFAULT_PATH}", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {name: [*capabilities] for name in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "minicontainer",
        "mounts": [
            {"destination": destination, "type": kind, "source": source, "options": [*options]}
            for destination, kind, source, options in mounts
        ],
        "linux": linux,
    }
