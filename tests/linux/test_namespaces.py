"""`linux/namespaces.py`, `linux/capabilities.py`, `linux/cgroups.py`, `linux/process.py` against the kernel's own files."""

from __future__ import annotations

import errno
import functools
import operator
import os
import re
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer import linux
from minicontainer.linux import Namespace, capabilities, cgroups, flags
from tests.command import DEADLINE


@pytest.mark.parametrize("kind", Namespace)
def test_the_link_is_what_readlink_shows(kind: Namespace) -> None:
    shown = subprocess.run(["readlink", f"/proc/{os.getpid()}/ns/{kind.proc_name}"], capture_output=True, text=True)
    assert kind.link() == kind.link(os.getpid()) == shown.stdout.strip()
    assert re.fullmatch(rf"{kind.proc_name}:\[\d+\]", kind.link())
    assert kind.supported


def test_every_namespace_of_the_kernel_is_known() -> None:
    names = {name.removesuffix("_for_children") for name in os.listdir("/proc/self/ns")}
    assert names == {kind.proc_name for kind in Namespace}


@pytest.mark.parametrize("kind", Namespace)
def test_the_flag_is_the_one_that_the_kernel_headers_give(kind: Namespace) -> None:
    header = Path("/usr/include/linux/sched.h")
    if not header.exists():
        pytest.skip(f"no {header} here (package linux-libc-dev)")
    name = "CLONE_NEWNS" if kind is Namespace.MOUNT else f"CLONE_NEW{kind.proc_name.upper()}"
    found = re.search(rf"#define {name}\s+(0x[0-9a-f]+)", header.read_text())
    assert found and kind.flag == int(found[1], 16)


@pytest.mark.parametrize("kind", Namespace)
def test_each_is_found_by_its_name(kind: Namespace) -> None:
    assert Namespace.named(kind.proc_name) is kind


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(KeyError):
        Namespace.named("mount")


@given(st.sets(st.sampled_from(Namespace)))
def test_flags_are_ored_and_none_is_lost(kinds: set[Namespace]) -> None:
    assert flags(kinds) == functools.reduce(operator.or_, (kind.flag for kind in kinds), 0)
    assert {kind for kind in Namespace if flags(kinds) & kind.flag} == kinds


def test_a_process_that_is_not_there_has_no_link() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(FileNotFoundError):
        Namespace.UTS.link(child)


def test_capabilities_are_those_in_proc_status() -> None:
    status = dict(re.findall(r"Cap(\w+):\t([0-9a-f]+)", Path("/proc/self/status").read_text()))
    sets = capabilities.capget()
    assert (sets.effective, sets.permitted, sets.inheritable) == tuple(
        int(status[n], 16) for n in ("Eff", "Prm", "Inh")
    )
    assert capabilities.capget(os.getpid()) == sets


def test_capability_names_are_in_the_order_of_their_numbers() -> None:
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip(f"no {header} here (package linux-libc-dev)")
    defined = {int(number): name for name, number in re.findall(r"#define CAP_(\w+)\s+(\d+)", header.read_text())}
    for number, name in enumerate(capabilities.NAMES):
        assert defined[number] == name
        only = capabilities.Capabilities(1 << number, 0, 0)
        assert [name for name in capabilities.NAMES if f"CAP_{name}" in only] == [name]


def test_capset_drops_and_the_kernel_shows_it() -> None:
    def drop() -> str:
        have = capabilities.capget()
        bit = 1 << capabilities.NAMES.index("SYS_ADMIN")
        high = 1 << capabilities.NAMES.index("BPF")  # in the second word of 32 bits
        capabilities.capset(capabilities.Capabilities(have.effective & ~bit & ~high, have.permitted & ~bit & ~high, 0))
        assert "SYS_ADMIN" not in capabilities.capget()
        return Path("/proc/self/status").read_text()

    status = dict(re.findall(r"Cap(\w+):\t([0-9a-f]+)", in_child(drop)))
    before = capabilities.capget()
    gone = sum(1 << capabilities.NAMES.index(name) for name in ("SYS_ADMIN", "BPF"))
    assert int(status["Eff"], 16) == before.effective & ~gone
    assert int(status["Prm"], 16) == before.permitted & ~gone


def test_capset_cannot_raise_what_is_not_permitted() -> None:
    def raise_them() -> str:
        capabilities.capset(capabilities.Capabilities(0, 0, 0))
        try:
            capabilities.capset(capabilities.Capabilities(1, 1, 0))
        except PermissionError as error:
            return str(error)
        return "allowed"

    assert in_child(raise_them) == "[Errno 1] capset(&_header, &_data): EPERM (Operation not permitted)"


def test_hierarchies_are_those_that_findmnt_shows() -> None:
    listed = subprocess.run(
        ["findmnt", "-rno", "FSTYPE,TARGET,OPTIONS", "-t", "cgroup,cgroup2"], capture_output=True, text=True
    ).stdout.splitlines()
    v1 = {target: options for fstype, target, options in map(str.split, listed) if fstype == "cgroup"}
    v2 = [target for fstype, target, _ in map(str.split, listed) if fstype == "cgroup2"]

    for tree in cgroups.hierarchies():
        if tree.version == 1:
            assert set(tree.controllers) <= set(v1[tree.mountpoint].split(","))
        else:
            assert tree.mountpoint in v2
            assert tree.controllers == tuple(Path(tree.mountpoint, "cgroup.controllers").read_text().split())
    of_ours = {name for tree in cgroups.hierarchies() for name in tree.controllers}
    for options in v1.values():
        assert set(options.split(",")) & set(cgroups.CONTROLLERS) <= of_ours


def test_the_tree_of_a_controller_is_the_one_that_governs_it() -> None:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, _ = line.split(":", 2)
        for controller in filter(None, controllers.split(",")):
            tree = cgroups.hierarchy_of(controller)
            if number != "0" and tree is not None and controller in cgroups.CONTROLLERS:
                assert tree.version == 1 and controller in tree.controllers
    assert cgroups.hierarchy_of("no such controller") is None


@pytest.mark.parametrize("name", ["a b", "a\tb", "a\\b", "a\nb", "a\rb", "a\\040b", "ä", os.fsdecode(b"\xff")])
def test_a_cgroup_tree_at_an_odd_place_is_found_there(tmp_path: Path, name: str) -> None:
    """mountinfo writes blanks, tabs, newlines and backslashes in octal: proc_pid_mountinfo(5)."""
    place = tmp_path / name
    place.mkdir()

    def mount_and_look() -> str:
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
        trees = [tree.mountpoint for tree in cgroups.hierarchies()]
        # Bound there: to mount the file system anew would take its options (nsdelegate) from the host's mount too.
        linux.mount(trees[0], place, None, linux.MS_BIND)
        for tree in set(trees):
            linux.umount2(tree, linux.MNT_DETACH)
        return "\0".join(tree.mountpoint for tree in cgroups.hierarchies())

    assert str(place) in in_child(mount_and_look).split("\0")


def test_unshare_and_setns_move_between_namespaces() -> None:
    def there_and_back() -> str:
        home = os.open("/proc/self/ns/uts", os.O_RDONLY)
        before = Namespace.UTS.link()
        linux.unshare(linux.CLONE_NEWUTS)
        away = Namespace.UTS.link()
        linux.sethostname("elsewhere")
        name = socket.gethostname()
        linux.setns(home, linux.CLONE_NEWUTS)
        assert Namespace.UTS.link() == before != away and name == "elsewhere"
        return socket.gethostname()

    assert in_child(there_and_back) == socket.gethostname()


def test_clone3_is_born_into_the_namespace() -> None:
    pid = linux.clone3(linux.CLONE_NEWPID | linux.CLONE_NEWUTS)
    if pid == 0:
        os._exit(os.getpid() + 41)  # 1 in there
    other = Namespace.UTS.link(pid)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
    assert other != Namespace.UTS.link()


def test_a_signalfd_reads_the_signals_that_are_held() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    fd = linux.signalfd({signal.SIGUSR1, signal.SIGUSR2})
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        data = os.read(fd, 128)
        assert len(data) == 128 and data[0] == signal.SIGUSR1
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})


@pytest.mark.parametrize("name", ["a", "x" * 64, "ü" * 32, "with space"])
def test_a_host_name_of_up_to_64_bytes_is_taken_as_it_is(name: str) -> None:
    def rename() -> str:
        linux.unshare(linux.CLONE_NEWUTS)
        linux.sethostname(name)
        linux.setdomainname(name[::-1])
        return Path("/proc/sys/kernel/hostname").read_text() + Path("/proc/sys/kernel/domainname").read_text()

    assert in_child(rename) == f"{name}\n{name[::-1]}\n"


@pytest.mark.parametrize("setter", [linux.sethostname, linux.setdomainname])
def test_a_longer_one_is_refused(setter) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(OSError) as raised:
        setter("x" * 65)
    assert raised.value.errno == errno.EINVAL


def test_the_loopback_flags_are_those_of_sysfs() -> None:
    assert linux.interface_flags("lo") & 0xFFFF == int(Path("/sys/class/net/lo/flags").read_text(), 16) & 0xFFFF or (
        # IFF_RUNNING and IFF_LOWER_UP are computed for ioctl(2) and not kept in sysfs
        linux.interface_flags("lo") & ~0x10040 == int(Path("/sys/class/net/lo/flags").read_text(), 16) & ~0x10040
    )
    with pytest.raises(OSError) as raised:
        linux.interface_flags("nosuchdevice")
    assert raised.value.errno == errno.ENODEV


def in_child(act) -> str:  # type: ignore[no-untyped-def]
    """What `act` returns in a process of its own; an exception there fails the test here."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            answer = "ok " + act()
        except BaseException as error:
            answer = f"failed {type(error).__name__}: {error}"
        os.write(write, os.fsencode(answer))
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = os.fsdecode(pipe.read())
    os.waitpid(child, 0)
    assert answer.startswith("ok "), answer
    return answer.removeprefix("ok ")


def test_a_joined_thread_is_not_counted_and_a_living_one_is() -> None:
    """threading's join returns before the kernel's thread has ended: some of so many are still there then."""
    for _ in range(300):
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
        assert linux.is_single_threaded(DEADLINE)
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert not linux.is_single_threaded()
    finally:
        done.set()
        thread.join()
    assert linux.is_single_threaded(DEADLINE)
