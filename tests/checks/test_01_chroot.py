"""Lab 01, chroot: root directories as the kernel has them, and what is on the disk of a root file system."""

from __future__ import annotations

import os
import stat

from labs.grading.checks import Wrong, check
from labs.grading.observed import Observed
from labs.grading.subject import Subject
from minicontainer.linux import Namespace

DIRECTORIES = ("/bin", "/dev", "/etc", "/proc", "/root", "/sys", "/tmp")
APPLETS = ("sh", "ls", "cat", "mount", "ps", "sleep", "hostname", "mkdir")
DEEP = "one/two/three/four/five/six/seven"


# build_root


@check("A shell runs in it", exercise="chroot.build_root", points=1.5)
def test_shell_runs(subject: Subject) -> None:
    """execve(2); `file` and `ldd` say what a program needs besides itself"""
    root, inside = _built(subject)
    if not _exists(inside, "/bin/sh", follow=False):
        raise Wrong("there is no bin/sh in it, and so nothing to run")
    if not _exists(inside, "/bin/sh"):
        raise Wrong(_dangling(inside, "/bin/sh"))
    mode = inside.stat("/bin/sh").st_mode
    subject.saw(f"inside, stat(/bin/sh) says {stat.filemode(mode)}")
    if not mode & 0o111:
        raise Wrong(
            f"the file behind /bin/sh has mode {stat.S_IMODE(mode):04o}: execve(2) refuses a file without the "
            f"permission to execute it (x) with EACCES, root's too. The bytes of a program were copied, and not its "
            f"permissions"
        )
    container = subject.start(["/bin/sh", "-c", f"sleep 600; : {subject.name('word')}"], image=root)
    command = container.program.command
    subject.saw(f"in a container with this root, /proc/PID/cmdline of the program is {' '.join(command[:2])} …")
    if command[:2] != ["/bin/sh", "-c"]:
        raise Wrong(f"/bin/sh was started and {command[0]} runs: what is /bin/sh in there?")


@check("Every applet of busybox is there under its name", exercise="chroot.build_root", points=1)
def test_applets(subject: Subject) -> None:
    """busybox --list-full; symlink(7): an absolute link is followed from the root directory of whoever follows it"""
    _, inside = _built(subject)
    missing = []
    for applet in APPLETS:
        places = [f"/{directory}/{applet}" for directory in ("bin", "sbin", "usr/bin", "usr/sbin")]
        found = [place for place in places if _exists(inside, place, follow=False)]
        if found and not any(_exists(inside, place) for place in found):
            raise Wrong(_dangling(inside, found[0]))
        missing += [] if found else [applet]
    subject.saw(f"looked for {', '.join(APPLETS)}; not there: {', '.join(missing) or 'none'}")
    if missing:
        raise Wrong(
            f"there is no {missing[0]} in bin, sbin, usr/bin or usr/sbin: busybox is whatever program it is called as, "
            f"and `busybox --list-full` names them all; it has to be found under each of these names"
        )


@check("The program in it is a copy", exercise="chroot.build_root", points=0.5)
def test_copy(subject: Subject) -> None:
    """link(2), symlink(7), cp(1); compare with cmp(1), and the inode numbers with ls -i"""
    _, inside = _built(subject)
    if not _exists(inside, "/bin/busybox", follow=False):
        raise Wrong("there is no bin/busybox, the one real program of this root file system")
    program = inside.stat("/bin/busybox", follow=False)
    subject.saw(f"/bin/busybox: {stat.filemode(program.st_mode)}, {program.st_size} bytes, {program.st_nlink} name(s)")
    if stat.S_ISLNK(program.st_mode):
        raise Wrong(
            f"bin/busybox is a link to {inside.readlink('/bin/busybox')}: that path lies outside of the new root "
            f"directory, where nobody in it can follow. Copy the program"
        )
    much = 16 << 20
    if inside.read("/bin/busybox", much) != subject.sandbox.read(subject.BUSYBOX, much):
        raise Wrong("bin/busybox is not the program that was given as `busybox`: its bytes are different")


@check("The directories that programs expect are there", exercise="chroot.build_root", points=1)
def test_directories(subject: Subject) -> None:
    """hier(7); chmod(1) on the sticky bit; passwd(5)"""
    _, inside = _built(subject)
    missing = [name for name in DIRECTORIES if not (_exists(inside, name) and stat.S_ISDIR(inside.stat(name).st_mode))]
    mode = stat.S_IMODE(inside.stat("/tmp").st_mode) if "/tmp" not in missing else 0
    subject.saw(f"not there: {', '.join(missing) or 'none'}; /tmp has mode {mode:04o}")
    if missing:
        raise Wrong(
            f"there is no directory {missing[0]}: in /proc, /sys and /dev the next lab mounts what programs look "
            f"for, /tmp is everybody's, and /etc and /root are where they expect the user database and a home"
        )
    if mode != 0o1777:
        raise Wrong(
            f"/tmp has mode {mode:04o} and should have 1777: everybody may write, and the sticky bit lets only the "
            f"owner of a file remove it. mkdir(2) cannot give all of that, because the umask takes bits away: chmod "
            f"afterwards"
        )
    if not (_exists(inside, "/etc/passwd") and inside.read("/etc/passwd").startswith(b"root:")):
        raise Wrong("/etc/passwd does not begin with the line of root: without it uid 0 has no name in there")


# enter_chroot


@check('The directory is the process\'s "/"', exercise="chroot.enter_chroot", points=1)
def test_root_directory(subject: Subject) -> None:
    """chroot(2); ls -l /proc/PID/root, from outside"""
    directory, process = _entered(subject)
    subject.saw(f"/proc/PID/root is {_named(process, 'root')}; the directory was {directory}")
    if process.root() == subject.sandbox.root():
        raise Wrong(
            "the root directory of the process is still the real one: chroot() was not called; chdir() only changes "
            "where the process stands, and every absolute path still begins at the old root"
        )
    if process.root() != _where(subject, directory):
        raise Wrong(
            f"the root directory of the process is {_named(process, 'root')} and should be {directory}: chroot() was "
            f"given another one"
        )


@check("The process stands inside", exercise="chroot.enter_chroot", points=1)
def test_working_directory(subject: Subject) -> None:
    """chroot(2): "This call does not change the current working directory"; ls -l /proc/PID/cwd"""
    directory, process = _entered(subject)
    cwd = _named(process, "cwd")
    subject.saw(f"/proc/PID/root is {_named(process, 'root')}, /proc/PID/cwd is {cwd}")
    if process.cwd() != _where(subject, directory):
        raise Wrong(
            f'the working directory is {cwd}, outside of the new root directory: from there ".." and every relative '
            f'path go on through the real tree. chroot() does not move it: chdir("/") must follow'
        )


@check("Nothing but root and working directory changes", exercise="chroot.enter_chroot", points=0.5)
def test_no_namespace(subject: Subject) -> None:
    """chroot(2): "changes an ingredient in the pathname resolution process and does nothing else"""
    _, process = _entered(subject)
    changed = [
        kind.proc_name
        for kind in Namespace
        if kind.supported and process.namespace(kind) != subject.sandbox.namespace(kind)
    ]
    subject.saw(f"namespaces that are new: {', '.join(changed) or 'none'}")
    if process.root() == subject.sandbox.root():
        raise Wrong("not even the root directory has changed: that nothing else has is no merit then")
    if changed:
        raise Wrong(f"the process left its {', '.join(changed)} namespace: that is for later labs, chroot needs none")


# break_out


@check('Afterwards the real root is "/" again', exercise="chroot.break_out", points=2.5)
def test_out(subject: Subject) -> None:
    """chroot(2), NOTES: how a superuser escapes; path_resolution(7) on "..\""""
    _outside(subject, subject.scratch())


@check("From however deep", exercise="chroot.break_out", points=1)
def test_out_of_the_deep(subject: Subject) -> None:
    """path_resolution(7): in a root directory, ".." is the directory itself: that can be seen with stat(2)"""
    _outside(subject, f"{subject.scratch(DEEP)}/{DEEP}")


def _outside(subject: Subject, jail: str) -> None:
    """Put a process into a chroot in `jail`, let it break out, and look where it is."""
    process = subject.perform([("os.chroot", [jail]), ("os.chdir", ["/"])])
    before, real, name_before = process.root(), subject.sandbox.root(), _named(process, "root")
    process.then("chroot.break_out")
    name = _named(process, "root").removesuffix(" (deleted)")
    subject.saw(
        f"/proc/PID/root: first {name_before}, afterwards {name}; /proc/PID/cwd afterwards {_named(process, 'cwd')}"
    )
    if process.root() == real:
        return
    if process.cwd() == real:
        raise Wrong(
            'the working directory is the real root, but "/" is not: every absolute path still begins in the jail. '
            "One more "
            "chroot, to where the process stands, finishes it"
        )
    if process.root() == before:
        raise Wrong(
            f'the root directory is still the jail, {name}: ".." stops at the root directory of the process. It does '
            f"not stop "
            f"where the process stands above its own root directory: move the root below you, and stay where you are"
        )
    if name.startswith(name_before):
        raise Wrong(
            f"the root directory is {name}, below the jail: a second chroot was made, and the process went into it. "
            f"Only from "
            f'a working directory that is outside of one\'s own root directory does ".." lead on, to the very top'
        )
    raise Wrong(
        f'the way up ended half-way, in {name}: how many ".." are needed depends on how deep the jail lies. Go on '
        f'until "." and ".." are the same directory'
    )


# What several of them need


def _built(subject: Subject) -> tuple[str, Observed]:
    """A directory in which build_root was let work, and a process for which it is "/", to resolve paths as inside."""
    root = subject.scratch()
    subject.perform("chroot.build_root", root, subject.BUSYBOX)
    return root, subject.perform([("os.chroot", [root]), ("os.chdir", ["/"])])


def _exists(process: Observed, path: str, *, follow: bool = True) -> bool:
    try:
        process.stat(path, follow=follow)
    except OSError:
        return False
    return True


def _dangling(inside: Observed, path: str) -> str:
    """The diagnosis for a link that leads nowhere, or round in a circle."""
    return (
        f"{path} is a link to {inside.readlink(path)}, and inside that leads to no file: once this directory is the "
        f"root directory, an absolute link is followed from there. It must be written as it will be seen inside"
    )


def _entered(subject: Subject) -> tuple[str, Observed]:
    directory = subject.scratch()
    return directory, subject.perform("chroot.enter_chroot", directory)


def _where(subject: Subject, directory: str) -> tuple[int, int]:
    """A directory of the sandbox, as the kernel identifies it: device and inode."""
    found = subject.sandbox.stat(directory)
    return found.st_dev, found.st_ino


def _named(process: Observed, which: str) -> str:
    """The kernel's name for a process's "root" or "cwd": what ls -l shows in /proc/PID."""
    return os.readlink(f"/proc/{process.pid}/{which}")
