"""Lab 02, the mount namespace: mount tables and root directories as the kernel has them.

Each function is looked at alone: the process that calls `pivot` or `mount_proc_and_dev` is in a private mount namespace
already, which the sandbox made for it. And the sandbox's own mounts are shared, as systemd makes a host's, so that what
is not made private spreads.
"""

from __future__ import annotations

import os
import stat

from labs.grading.checks import Wrong, check
from labs.grading.observed import MountInfo, Observed
from labs.grading.subject import Call, Performed, Subject
from minicontainer.linux import CLONE_NEWNS, MS_PRIVATE, MS_REC

PRIVATELY: list[Call] = [("linux.unshare", [CLONE_NEWNS]), ("linux.mount", [None, "/", None, MS_REC | MS_PRIVATE])]
"""What make_private does, for the checks of the other two functions."""

DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
"""Name → major and minor number: Documentation/admin-guide/devices.txt of the kernel."""

LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}


# make_private


@check("The process has a mount namespace of its own", exercise="mount.make_private", points=1)
def test_own_namespace(subject: Subject) -> None:
    """mount_namespaces(7), unshare(2); compare: readlink /proc/self/ns/mnt, outside and inside"""
    process = subject.perform("mount.make_private")
    inside, outside = process.namespace("mnt"), subject.sandbox.namespace("mnt")
    subject.saw(f"the process {inside}, outside {outside}")
    if inside == outside:
        raise Wrong(
            f"the process is still in the mount namespace that it came from, {outside}: unshare(CLONE_NEWNS) was not "
            f"called, and every mount that follows is made on the host"
        )


@check("No mount in it spreads, or follows", exercise="mount.make_private", points=1)
def test_all_private(subject: Subject) -> None:
    """mount_namespaces(7), "Shared subtrees"; the optional fields of /proc/PID/mountinfo: shared:N, master:N"""
    process = subject.perform("mount.make_private")
    mounts = process.mountinfo()
    spreading = [mount for mount in mounts if "shared" in mount.propagation]
    following = [mount for mount in mounts if "master" in mount.propagation]
    subject.saw(f"of {len(mounts)} mounts: {len(spreading)} shared, {len(following)} followers of another")
    if spreading and len(spreading) == len(mounts):
        raise Wrong(
            f'every mount is still {spreading[0].propagation.split(":")[0]}, "/" first of all: a new mount namespace '
            f"is a copy whose "
            f"mounts are peers of the originals, and what is mounted in one appears in the other. Make them private"
        )
    if spreading:
        raise Wrong(
            f'"/" is private, and {_points(spreading)} still shared: mount(2) changes one mount only, unless MS_REC '
            f"makes it "
            f"go through all below"
        )
    if following:
        raise Wrong(
            f"{_points(following)} of kind slave (master:N in mountinfo): nothing spreads from here any more, but "
            f"what the host mounts still arrives here. MS_SLAVE is the half of it, MS_PRIVATE the whole"
        )


@check("The mounts outside stay as they were", exercise="mount.make_private", points=0.5)
def test_outside_unchanged(subject: Subject) -> None:
    """unshare(2); /proc/PID/mountinfo of a process that stayed outside"""
    before = _spread(subject.sandbox)
    process = subject.perform("mount.make_private")
    after = _spread(subject.sandbox)
    changed = [point for point in before if after.get(point) != before[point]]
    subject.saw(f'"/" outside: {before["/"]}, afterwards {after["/"]}; changed mounts: {len(changed)}')
    if changed:
        raise Wrong(
            f"{len(changed)} mounts of the host are not shared any more: mount() was called while the process was "
            f"still in the host's mount namespace. Changing the propagation there cuts off everybody else; "
            f"unshare(CLONE_NEWNS) comes first"
        )
    if process.namespace("mnt") == subject.sandbox.namespace("mnt"):
        raise Wrong("the process has not left the host's mount namespace: that nothing changed there is no merit then")


def _spread(process: Observed) -> dict[str, str]:
    return {mount.mountpoint: mount.propagation.partition(":")[0] for mount in process.mountinfo()}


def _points(mounts: list[MountInfo]) -> str:
    names = [mount.mountpoint for mount in mounts]
    return f"{names[0]} is" if len(names) == 1 else f"{names[0]} and {len(names) - 1} others are"


# pivot


@check('The new root is "/"', exercise="mount.pivot", points=1)
def test_new_root(subject: Subject) -> None:
    """pivot_root(2): both arguments must be mounts, or the new root be made one; ls -l /proc/PID/root"""
    mark, process = _pivoted(subject)
    found = _listed(process)
    subject.saw(f'"/" of the process has: {", ".join(found[:6])}')
    if mark not in found:
        raise Wrong(
            f'"/" of the process is not the new root: it has {", ".join(found[:4])} … and not the directory {mark} '
            f"that is in there"
        )


@check("The process stands inside", exercise="mount.pivot", points=0.5)
def test_working_directory(subject: Subject) -> None:
    """pivot_root(2) "does not change the caller's current working directory"; ls -l /proc/PID/cwd, from outside"""
    _, process = _pivoted(subject)
    subject.saw(f"/proc/PID/cwd is {_link(process, 'cwd')}")
    if process.root() == subject.sandbox.root():
        raise Wrong("the root directory has not changed: that the process stands in it is no merit then")
    if process.cwd() != process.root():
        raise Wrong(
            f'the working directory is {_link(process, "cwd")} and not "/": the process still stands where it stood, '
            f'and holds on to what lies there; chdir("/") must follow'
        )


@check("Of the old root nothing is mounted any more", exercise="mount.pivot", points=1)
def test_old_root_is_gone(subject: Subject) -> None:
    """umount2(2), MNT_DETACH; findmnt(8), or /proc/PID/mountinfo, line by line"""
    _, process = _pivoted(subject)
    mounts = process.mountinfo()
    subject.saw(
        "mounted in there: " + (", ".join(f"{mount.mountpoint} ({mount.fstype})" for mount in mounts[:8]) or "nothing")
    )
    if not mounts:
        raise Wrong(
            'no mount has its place below "/" of the process: its root directory is a mere directory in the old tree '
            "of mounts, which "
            "is all still there. That was chroot(); pivot_root() exchanges the mount at the top"
        )
    if len(mounts) > 1:
        left = next(
            (mount for mount in mounts if mount.fstype != mounts[0].fstype or mount.mountpoint != "/"), mounts[1]
        )
        raise Wrong(
            f"{len(mounts) - 1} mounts of the old root are still there, such as {left.mountpoint} ({left.fstype}): "
            f"pivot_root() only moves the old root to put_old. Detach it, with everything below it: umount2() with "
            f"MNT_DETACH"
        )


@check("The way out of lab 01 is closed", exercise="mount.pivot", points=1)
def test_no_way_out(subject: Subject) -> None:
    """chroot(2), NOTES; path_resolution(7): ".." stops at the root directory, and at the top of the tree of mounts"""
    mark, process = _pivoted(subject)
    try:
        process.then("chroot.break_out")
    except Wrong as error:
        subject.saw(f"break_out of lab 01 failed: {error}")
    found = _listed(process)
    subject.saw(f'after break_out of lab 01, "/" of the process has: {", ".join(found[:6])}')
    if mark not in found and "classroom" in found:
        raise Wrong(
            'break_out of lab 01 has led the process back to the old root: a second chroot below it, and ".." goes '
            "up to wherever "
            "the tree of mounts has its top. That must be the new root: pivot_root(), and then no old root left to "
            "go to"
        )


@check("It leaves nothing behind in the new root", exercise="mount.pivot", points=0.5)
def test_nothing_left_behind(subject: Subject) -> None:
    """pivot_root(2), NOTES: pivot_root(".", ".")"""
    mark, process = _pivoted(subject)
    found = _listed(process)
    subject.saw(f'"/" of the process has: {", ".join(found[:6])}')
    if extra := sorted(set(found) - {mark}):
        raise Wrong(
            f"there is a directory {extra[0]} in the new root that was not there before: every container of this "
            f"image would find it. Remove it, or do without: the manual page says how, where it calls pivot_root "
            f"with the same path twice"
        )


def _pivoted(subject: Subject) -> tuple[str, Performed]:
    """A process after pivot, and the name of the only directory in its new root."""
    mark = subject.name("mark")
    root = subject.scratch(mark)
    return mark, subject.perform([*PRIVATELY, ("mount.pivot", [root])])


def _listed(process: Observed) -> list[str]:
    return sorted(process.listdir("/"))


def _link(process: Observed, which: str) -> str:
    return os.readlink(f"/proc/{process.pid}/{which}")


# mount_proc_and_dev


@check("/proc shows the container's own processes", exercise="mount.mount_proc_and_dev", points=0.5)
def test_proc(subject: Subject) -> None:
    """proc(5): a proc file system shows the PID namespace of whoever mounted it"""
    root = subject.scratch("proc", "dev")
    process = subject.perform([*PRIVATELY, ("mount.mount_proc_and_dev", [root])])
    mount = _mounted(process, f"{root}/proc")
    if mount is None:
        raise Wrong(
            "nothing is mounted on proc of the new root: ps, top and every program that opens /proc find it empty"
        )
    subject.saw(f"proc is of type {mount.fstype}, with {','.join(mount.options)}")
    if mount.fstype != "proc":
        raise Wrong(f"what is mounted on proc is of type {mount.fstype}, not of type proc")
    if mount.device in {other.device for other in subject.sandbox.mountinfo()}:
        raise Wrong(
            "/proc in there is the host's own, bound: it goes on showing the processes of the PID namespace that it "
            "was mounted "
            'in. Mount a new file system of type "proc"'
        )


@check("/proc is mounted with the usual care", exercise="mount.mount_proc_and_dev", points=0.5)
def test_proc_flags(subject: Subject) -> None:
    """mount(2): MS_NOSUID, MS_NODEV, MS_NOEXEC; findmnt /proc on any distribution shows the three"""
    process, root = _furnished(subject)
    mount = _mounted(process, f"{root}/proc")
    options = mount.options if mount else []
    missing = [option for option in ("nosuid", "nodev", "noexec") if option not in options]
    subject.saw(f"proc: {','.join(options) or 'not mounted'}")
    if missing:
        raise Wrong(
            f"/proc is mounted without {', '.join(missing)}: nobody needs to run a program or open a device from it, "
            f"and mount(2) has a flag for each of these"
        )


@check("/dev is a file system of its own", exercise="mount.mount_proc_and_dev", points=1)
def test_dev(subject: Subject) -> None:
    """tmpfs(5); /proc/PID/mountinfo"""
    process, root = _furnished(subject)
    mount = _mounted(process, f"{root}/dev")
    subject.saw(f"dev is of type {mount.fstype}, {mount.device}" if mount else "nothing is mounted on dev")
    if mount is None:
        raise Wrong("nothing is mounted on dev of the new root: what is made in there would be written into the image")
    if mount.device in {other.device for other in subject.sandbox.mountinfo() if other.mountpoint.startswith("/dev")}:
        raise Wrong(
            "dev in there is the host's own /dev, bound: the container sees every disk of the host, and what it "
            "makes or removes in /dev, the host has or lacks. Mount a new, empty tmpfs, and put in only what is needed"
        )
    if mount.fstype != "tmpfs":
        raise Wrong(f"what is mounted on dev is of type {mount.fstype}: a new, empty tmpfs is what is needed")


@check("The six devices are there and work", exercise="mount.mount_proc_and_dev", points=0.5)
def test_devices(subject: Subject) -> None:
    """null(4), random(4), full(4), tty(4); mknod(2) on why it is not allowed here: bind the host's (MS_BIND)"""
    process, root = _furnished(subject)
    found: dict[str, str] = {}
    for name in DEVICES:
        try:
            told = process.stat(f"{root}/dev/{name}", follow=False)
            device = f"{os.major(told.st_rdev)}:{os.minor(told.st_rdev)}"
            found[name] = device if stat.S_ISCHR(told.st_mode) else stat.filemode(told.st_mode)
        except OSError:
            found[name] = "not there"
    subject.saw(", ".join(f"{name} {what}" for name, what in found.items()))
    for name, (major, minor) in DEVICES.items():
        if found[name] == "not there":
            raise Wrong(
                f"there is no /dev/{name} in it: shells and libraries take it for granted, and make a plain file "
                f"where it is missing"
            )
        if found[name] != f"{major}:{minor}":
            raise Wrong(
                f"/dev/{name} is {found[name]}, and should be the character device {major}:{minor}: an empty file is "
                f"only the place to bind the host's device onto, with MS_BIND"
            )


@check("Terminals and shared memory have their places", exercise="mount.mount_proc_and_dev", points=0.5)
def test_pts_and_shm(subject: Subject) -> None:
    """devpts in the kernel's Documentation/filesystems; pts(4), shm_overview(7)"""
    process, root = _furnished(subject)
    pts, shm = _mounted(process, f"{root}/dev/pts"), _mounted(process, f"{root}/dev/shm")
    subject.saw(f"dev/pts: {pts.fstype if pts else 'not mounted'}; dev/shm: {shm.fstype if shm else 'not mounted'}")
    if pts is None or pts.fstype != "devpts":
        raise Wrong('nothing of type "devpts" is mounted on dev/pts: no program in there can open a terminal')
    if pts.device in {other.device for other in subject.sandbox.mountinfo()}:
        raise Wrong(
            "dev/pts in there is the host's, bound: the terminals of everybody on the host can be seen and written to"
        )
    if not _leads_to(process, f"{root}/dev/ptmx", "pts/ptmx"):
        raise Wrong(
            "dev/ptmx does not lead to pts/ptmx: each devpts has a ptmx of its own, and the one in /dev must be a "
            "link to it, or new terminals would come out of another one"
        )
    if shm is None or shm.fstype != "tmpfs":
        raise Wrong("nothing of type tmpfs is mounted on dev/shm: shm_open(3) fails there")
    if not process.stat(f"{root}/dev/shm").st_mode & 0o1000:
        raise Wrong(
            "dev/shm has no sticky bit: everybody may write there, and so must not remove other people's files "
            "(mode=1777)"
        )


@check("Its own open files have their names", exercise="mount.mount_proc_and_dev", points=0.5)
def test_links(subject: Subject) -> None:
    """proc_pid_fd(5); ls -l /dev/std* /dev/fd"""
    process, root = _furnished(subject)
    wrong = [name for name, target in LINKS.items() if not _leads_to(process, f"{root}/dev/{name}", target)]
    subject.saw(f"links that are not there or lead elsewhere: {', '.join(wrong) or 'none'}")
    if wrong:
        raise Wrong(
            f"/dev/{wrong[0]} is no link to {LINKS[wrong[0]]}: a shell's <(command), and programs that are told to "
            f"write to /dev/stdout, go there"
        )


def _furnished(subject: Subject) -> tuple[Observed, str]:
    """A process after mount_proc_and_dev, and the root that it has furnished."""
    root = subject.scratch("proc", "dev")
    return subject.perform([*PRIVATELY, ("mount.mount_proc_and_dev", [root])]), root


def _mounted(process: Observed, path: str) -> MountInfo | None:
    """What is mounted at a path: the last line of mountinfo that names it lies on top."""
    found = [mount for mount in process.mountinfo() if mount.mountpoint == path]
    return found[-1] if found else None


def _leads_to(process: Observed, link: str, target: str) -> bool:
    try:
        return process.readlink(link).removeprefix("/dev/") in {target, f"..{target}"}
    except OSError:
        return False
