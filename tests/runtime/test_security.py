"""What past CVEs taught: each attack is tried, on the whole runtime with what `minicontainer-runtime spec` writes.

docs/SECURITY.md has a row for each. Where an attack is not known to work on this very machine, it is first made to: a
test that is passed by an attack which could never have succeeded shows nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from minicontainer.linux import Namespace
from minicontainer.runtime.bundle import default_config
from minicontainer.runtime.spec import CapabilitySets
from tests.cli.test_rootless import UID, reachable
from tests.command import DEADLINE, needs_root, wait_until
from tests.host_state import children
from tests.runtime.conftest import Nursery
from tests.steps.apart import swapping

pytestmark = needs_root

CHECKOUT = Path(__file__).parents[2]
PROGRAM = (
    f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); from minicontainer.cli.runtime import main; sys.exit(main())"
)
INSTALLED = Path(sys.executable).with_name("minicontainer-runtime")
RUNTIME = [str(INSTALLED)] if INSTALLED.exists() else [sys.executable, "-S", "-c", PROGRAM]

Config = dict[str, Any]
SECRET = "tell-nobody-3c1f"


@dataclass
class Oci:
    """The runtime with one bundle, which an attacker may have made."""

    place: Path
    image: str
    words: list[str] = field(default_factory=lambda: list(RUNTIME))
    count: int = 0

    @property
    def rootfs(self) -> Path:
        """The image."""
        return self.place / "bundle/rootfs"

    def bundle(self, *args: str, change: Callable[[Config], object] = lambda config: None) -> None:
        """Write the default config.json with these arguments, and changes."""
        config = default_config()
        config["process"] |= {"terminal": False, "args": list(args)}
        change(config)
        (self.place / "bundle/config.json").write_text(json.dumps(config))

    def __call__(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command of the runtime to its end; what it and the program wrote, is in a file: nobody waits for that."""
        self.count += 1
        settings: dict[str, Any] = {"stdin": subprocess.DEVNULL, "timeout": DEADLINE}
        with open(self.place / f"said{self.count}", "w+", errors="replace") as said:
            done = subprocess.run(self.line(*arguments), stdout=said, stderr=said, **{**settings, **options})
            said.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, said.read())

    def line(self, *arguments: str) -> list[str]:
        """The whole command line."""
        return [*self.words, "--root", str(self.place / "state"), *arguments]

    def run(self, *args: str, change: Callable[[Config], object] = lambda config: None, **options: Any) -> str:
        """What the program of a new container writes, and the runtime if it has to say something."""
        self.bundle(*args, change=change)
        return self("run", *self.where(), "c", **options).stdout

    def create(self, *args: str, change: Callable[[Config], object] = lambda config: None, **options: Any) -> int:
        """A container that waits to be started; the pid of its process 1."""
        self.bundle(*args, change=change)
        done = self("create", *self.where(), "c", **options)
        assert done.returncode == 0, done.stdout
        return self.pid()

    def where(self) -> list[str]:
        """The option that says where the bundle is."""
        return ["--bundle", str(self.place / "bundle")]

    def pid(self) -> int:
        """Of process 1."""
        return int(json.loads(self("state", "c").stdout)["pid"])

    def exec(self, *args: str) -> str:
        """What another program in the container writes, and the runtime."""
        return self("exec", "c", *args).stdout


@pytest.fixture
def oci(tmp_path: Path, busybox: str) -> Iterator[Oci]:
    """A bundle of its own to each test, and its container, which is gone afterwards."""
    (tmp_path / "bundle").mkdir()
    subprocess.run(["cp", "-a", busybox, tmp_path / "bundle/rootfs"], check=True)
    oci = Oci(tmp_path, busybox)
    yield oci
    if (tmp_path / "state").exists():
        assert Oci(tmp_path, busybox)("delete", "--force", "c").returncode == 0


def with_python(config: Config) -> None:
    """The host's Python in the container, read-only, as the attacker's tool: busybox has no ptrace and no ioctl."""
    for place in {"/usr", "/lib", "/lib64", sys.base_prefix}:
        if os.path.isdir(place):
            options = ["rbind", "ro"]
            config["mounts"].append({"destination": place, "type": "bind", "source": place, "options": options})
    config["root"]["readonly"] = False  # the places are made


def python(code: str) -> list[str]:
    """The arguments that run it there."""
    return [f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}", "-I", "-S", "-c", code]


# CVE-2019-5736: the runtime's own executable


SERVANT = """
exec 9< /proc/self/exe
exec /bin/busybox sh /overwrite
"""
OVERWRITE = """
echo "I am in, and hold $(readlink /proc/self/fd/9)"
for i in $(seq 100); do  # as long as somebody runs it, nobody can write to it
    if (echo '#!/bin/attacker' > /proc/self/fd/9) 2>/dev/null; then echo overwritten; exit 0; fi
    usleep 20000
done
echo "it has been busy all the time"
"""


def loader_of(executable: Path) -> str:
    """The dynamic loader that an ELF file asks for: its PT_INTERP, elf(5)."""
    data = executable.read_bytes()
    start, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    for header in range(count):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", data, start + header * size)
        if kind == 3:
            return data[offset : offset + length].rstrip(b"\0").decode()
    raise AssertionError("it is linked statically")


def weaken(code: str) -> str:
    """The program of the runtime, with a hole."""
    return PROGRAM.replace("sys.exit(main())", f"{code}; sys.exit(main())")


WITHOUT_STUB = weaken("from minicontainer.runtime import program; program._stand_in = lambda process: None")


def interpreter_after(
    oci: Oci, tmp_path: Path, program: str, way: str, interpreter: str = "python3"
) -> tuple[str, bool]:
    """Start the image's attack, with a copy of the interpreter to run the runtime: what it said; whether the copy lives.

    `way`: "link" (the program is a link to /proc/self/exe), "script" (its #! line leads there), "exec" (it is what
    somebody wants to run in a container that runs already, as in the CVE itself), "hook" (likewise, a hook's).
    """
    copy = tmp_path / interpreter
    shutil.copy(os.path.realpath(sys.executable), copy)
    before = copy.read_bytes()
    shell = oci.rootfs / "bin/sh"
    shell.unlink()
    shell.symlink_to("/proc/self/exe")
    # What the kernel loads to go with the host's interpreter, is in the image: here the attacker has an effect at all.
    loader = oci.rootfs / loader_of(copy).lstrip("/")
    loader.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(oci.rootfs / "bin/busybox", loader)
    (oci.rootfs / "servant").write_text("#!/bin/sh\n" + SERVANT)
    (oci.rootfs / "servant").chmod(0o755)
    (oci.rootfs / "overwrite").write_text(OVERWRITE)
    attack = ["/servant"] if way == "script" else ["/bin/sh", "/servant"]

    oci.words = [str(copy), "-S", "-c", program]
    environment = {**os.environ, "PYTHONHOME": sys.base_prefix}
    if way == "hook":  # in the container, by a path of the container's
        hooks = {"startContainer": [{"path": "/bin/sh", "args": attack}]}
        (oci.rootfs / "servant").write_text(
            SERVANT.strip().replace("exec /bin", "exec < /dev/null > /dev/null 2>&1; /bin") + "&"
        )
        pid = oci.create(
            "/bin/busybox", "sleep", "1", env=environment, change=lambda config: config.update(hooks=hooks)
        )
        said = oci.place / f"said{oci.count - 1}"
        started = oci("start", "c", env=environment)
    elif way == "exec":
        oci.create("/bin/busybox", "sleep", "600", env=environment)
        assert oci("start", "c", env=environment).returncode == 0
        started = oci("exec", "--detach", "--pid-file", f"{tmp_path}/pid", "c", *attack, env=environment)
        said, pid = oci.place / f"said{oci.count}", int((tmp_path / "pid").read_text() or 0)
    else:
        pid = oci.create(*attack, env=environment)
        said = oci.place / f"said{oci.count - 1}"
        started = oci("start", "c", env=environment)
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or is_zombie(pid), "the attacker has had his time")
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    oci.words = list(RUNTIME)
    assert started.returncode in (0, 1)
    return said.read_text(), copy.read_bytes() == before


def is_zombie(pid: int) -> bool:
    """Whether it has ended, and nobody has asked how."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


@pytest.mark.parametrize("way", ["link", "script", "exec", "hook"])
def test_the_attack_on_the_interpreter_works_where_nothing_stands_in(oci: Oci, tmp_path: Path, way: str) -> None:
    said, intact = interpreter_after(oci, tmp_path, WITHOUT_STUB, way)
    assert not intact and (("I am in" in said and "overwritten" in said) or way == "hook"), said


@pytest.mark.parametrize("way", ["link", "script", "exec", "hook"])
def test_a_program_that_is_the_runtimes_own_executable(oci: Oci, tmp_path: Path, way: str) -> None:
    """CVE-2019-5736: what it gets is the stub, which is nobody's interpreter."""
    said, intact = interpreter_after(oci, tmp_path, PROGRAM, way)
    assert intact and "I am in" not in said, said


def test_where_nothing_in_memory_may_be_executed_containers_run_all_the_same(oci: Oci) -> None:
    """vm.memfd_noexec=2, of this PID namespace: without the stub, then; docs/SECURITY.md says so."""
    oci.bundle("/bin/echo", "it runs")
    inner = " ".join(map(shlex.quote, oci.line("run", *oci.where(), "c")))
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", f"echo 2 > /proc/sys/vm/memfd_noexec && {inner}"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "it runs\n", "")


def test_capabilities_of_a_file_are_not_lost_on_the_way(oci: Oci) -> None:
    """For somebody who is not root and may gain none, it is whoever executes the file that must have them."""
    net_raw = 1 << 13
    shutil.copy(oci.rootfs / "bin/busybox", oci.rootfs / "grep")
    os.setxattr(oci.rootfs / "grep", "security.capability", struct.pack("<5I", 0x02000001, net_raw, 0, 0, 0))

    def change(config: Config) -> None:
        config["process"]["user"] = {"uid": 1000, "gid": 1000}

    said = oci.run("/grep", "CapEff", "/proc/self/status", change=change)
    assert int(said.split()[1], 16) == net_raw, said


# What cannot be executed is told as ever, though by then nobody is left but the stub


TOLD = {
    "data": "execve(/data): exec format error",
    "orphan": "execve(/orphan): its interpreter, after #! or the dynamic loader, is not in the image: no such file or directory",
    "forbidden": "execve(/forbidden): permission denied",
    "etc": "execve(/etc): permission denied",
    "ring": "execve(/ring): too many levels of symbolic links",
    "nowhere": "/nowhere: not found in the container: no such file or directory",
    'na\u00efve "\\': 'execve(/na\u00efve "\\): permission denied',
}


def test_what_cannot_be_executed_is_told(oci: Oci) -> None:
    (oci.rootfs / "data").write_bytes(b"\x7fELF nonsense")
    (oci.rootfs / "orphan").write_text("#!/bin/missing\n")
    (oci.rootfs / "ring").symlink_to("ring")
    for name in ("data", "orphan"):
        (oci.rootfs / name).chmod(0o755)
    for name in ("forbidden", 'na\u00efve "\\'):
        (oci.rootfs / name).write_text("true\n")
    for what, told in TOLD.items():
        assert oci.run(f"/{what}") == f"minicontainer-runtime: {told}\n"
    for what in ("data", "orphan", "nowhere"):
        oci.create(f"/{what}")
        done = oci("start", "c")
        assert (done.returncode, done.stdout) == (1, f"minicontainer-runtime: {TOLD[what]}\n")
        assert oci("delete", "c").returncode == 0
    oci.create("/bin/busybox", "sleep", "600")
    assert oci("start", "c").returncode == 0
    for what, told in TOLD.items():
        assert oci.exec(f"/{what}") == f"minicontainer-runtime: {told}\n"


# CVE-2024-21626, CVE-2016-9962: files of the host's that stay open


def test_no_file_reaches_the_program_but_those_it_is_given(oci: Oci, tmp_path: Path) -> None:
    """CVE-2024-21626: whoever starts us may have left files open, and we have opened some ourselves."""
    listing = ["sh", "-c", "ls -l /proc/self/fd 2> /dev/null; echo done; exec sleep ${0#sh}"]
    places = [os.open("/", os.O_RDONLY | os.O_DIRECTORY), os.open("/etc", os.O_PATH)]
    given = os.open(tmp_path / "given", os.O_RDWR | os.O_CREAT)
    try:
        high = fcntl.fcntl(places[0], fcntl.F_DUPFD, 200)
        places.append(high)
        for fd in (*places, given):
            os.set_inheritable(fd, True)
        leaky: dict[str, Any] = {"close_fds": False}
        seen = [oci.run(*listing, "0", **leaky)]
        oci.create(*listing, "600", **leaky)
        created = oci.place / f"said{oci.count - 1}"
        assert oci("start", "c", **leaky).returncode == 0
        wait_until(lambda: "done" in created.read_text(), "the program has looked")
        seen += [created.read_text(), oci("exec", "c", *listing, "0", **leaky).stdout]
    finally:
        for fd in (*places, given):
            os.close(fd)
    for listed in seen:
        lines = [line for line in listed.splitlines() if line.startswith("l")]
        numbers = sorted(int(line.split(" -> ")[0].split()[-1]) for line in lines)
        assert numbers == [0, 1, 2, 3], listed  # and the directory that ls reads
        assert "/etc" not in listed and "memfd" not in listed, listed


def test_preserved_files_are_the_only_others(oci: Oci, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("given\n")
    oci.bundle("sh", "-c", "cat <&3; ls /proc/self/fd")
    line = oci.line("run", "--preserve-fds", "1", *oci.where(), "c")
    done = subprocess.run(
        ["sh", "-c", 'exec 3<"$0" 4</ 5</etc; exec "$@"', tmp_path / "given", *line],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE,
    )  # fmt: skip
    assert done.stdout.split() == ["given", "0", "1", "2", "3", "4"], done  # the last is that of ls itself
    assert done.stderr == ""


def test_a_working_directory_that_is_an_open_file(oci: Oci) -> None:
    """CVE-2024-21626: process.cwd, or --cwd, or a link of the image's leads to a directory that we have open."""
    places = [os.open("/", os.O_RDONLY | os.O_DIRECTORY) for _ in range(4)]
    try:
        for fd in places:
            os.set_inheritable(fd, True)
        numbers, refusals = sorted({*range(3, 12), *places}), list[str]()
        for number in numbers:
            (oci.rootfs / f"work{number}").symlink_to(f"/proc/self/fd/{number}")
            cwd = f"/proc/self/fd/{number}" if number % 2 else f"/work{number}"

            def change(config: Config, cwd: str = cwd) -> None:
                config["process"]["cwd"] = cwd

            said = oci.run("sh", "-c", "echo started; cat etc/passwd", change=change, close_fds=False)
            assert "started" not in said and said.count("\n") == 1, (number, said)
            refusals.append(said)
        oci.create("sleep", "600")
        for number in numbers:
            done = oci("exec", "--cwd", f"/proc/self/fd/{number}", "c", "echo", "started", close_fds=False)
            assert done.returncode and "started" not in done.stdout, (number, done.stdout)
            refusals.append(done.stdout)
        assert sum("leads out of the container" in said for said in refusals) > 3, "there was no such file to be had"
    finally:
        for fd in places:
            os.close(fd)


@pytest.mark.parametrize("link", ["/../../../../../../../../..", "../../../../../../..", "{host}", "/proc/1/root", "/proc/1/cwd"])  # fmt: skip
def test_a_working_directory_that_is_a_link_of_the_image(oci: Oci, tmp_path: Path, link: str) -> None:
    """It leads nowhere, or to somewhere in the container."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host/secret").touch()
    (oci.rootfs / "mark").touch()
    (oci.rootfs / "work").symlink_to(link.format(host=tmp_path / "host"))

    def change(config: Config) -> None:
        config["process"]["cwd"] = "/work"

    said = oci.run("sh", "-c", "pwd -P; ls . .. ../../../..", change=change)
    assert "secret" not in said and "bundle" not in said
    assert os.listdir(tmp_path / "host") == ["secret"]
    if "{host}" not in link:  # there, in the container, the directory is made
        assert said.startswith("/\n") and said.count("mark\n") == 3, said


LOOK_INTO_1 = """
for file in /proc/1/exe /proc/1/fd/* /proc/1/cwd /proc/1/root; do readlink $file && echo "read $file"; done
for file in environ mem maps auxv; do (cat < /proc/1/$file > /dev/null) && echo "opened $file"; done
for fd in /proc/1/fd/*; do ls $fd/ && echo "listed $fd"; ls $fd/../../../../.. && echo "climbed from $fd"; done
(: >> /proc/1/exe) && echo "opened the interpreter"
"""


def users(outside: int) -> Callable[[Config], None]:
    """A user namespace whose root is this user outside."""

    def change(config: Config) -> None:
        config["linux"]["namespaces"].append({"type": "user"})
        for name in ("uidMappings", "gidMappings"):
            config["linux"][name] = [{"containerID": 0, "hostID": outside, "size": 1000}]

    return change


@pytest.mark.parametrize("maps", [None, 0, 100000], ids=["no user namespace", "root is root", "root is 100000"])
def test_before_the_start_nobody_looks_into_process_1(oci: Oci, maps: int | None) -> None:
    """CVE-2016-9962, CVE-2019-5736: a container waits for its start, and somebody is executed in it."""
    if maps:
        for place in (oci.place, oci.place.parent, oci.place.parent.parent):
            place.chmod(0o755)
    oci.create("sleep", "600", change=users(maps) if maps is not None else lambda config: None)
    said = oci.exec("sh", "-c", LOOK_INTO_1)
    assert "Permission denied" in said
    for word in ("read ", "opened ", "listed ", "climbed "):
        assert word not in said, said


def test_before_the_start_a_rootless_one_holds_no_way_out(tmp_path: Path, busybox: str) -> None:
    """There the user is root inside, and may look into what is his: so there is nothing to be found."""
    bundle = tmp_path / "state/bundle"
    (tmp_path / "state").mkdir()
    bundle.mkdir()
    subprocess.run(["cp", "-a", busybox, bundle / "rootfs"], check=True)
    config = default_config(rootless=True)
    config["process"] |= {"terminal": False, "args": ["sleep", "600"]}
    for name in ("uidMappings", "gidMappings"):
        config["linux"][name][0]["hostID"] = UID
    (bundle / "config.json").write_text(json.dumps(config))
    (bundle / "attack").write_text(LOOK_INTO_1)
    subprocess.run(["chown", "-R", f"{UID}:{UID}", tmp_path / "state"], check=True)
    prefix, _ = reachable(tmp_path)
    runtime = f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor} -B -I -S -c " + shlex.quote(
        PROGRAM.replace(str(CHECKOUT), "/mnt/code")
    ) + " --root /mnt/state/runtime"  # fmt: skip
    script = f"""
    {runtime} create --bundle /mnt/state/bundle c </dev/null >/mnt/state/out 2>&1 && echo created
    {runtime} exec c sh -c "$(cat /mnt/state/bundle/attack)" </dev/null 2>&1
    {runtime} delete --force c
    """
    become = ["setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups", "--inh-caps=-all"]
    done = subprocess.run(
        [*prefix, *become, "sh", "-c", script],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE,
    )  # fmt: skip
    assert done.stdout.startswith("created\n") and done.stderr == "", done
    assert "read /proc/1/fd/" in done.stdout, "it could not even look: then say so instead"
    assert "listed" not in done.stdout and "climbed" not in done.stdout, done.stdout
    assert "opened the interpreter" not in done.stdout


# Links of the image's, and races with whoever can write to it

ROUNDS, MOST = 12, 200
"""How often a race is run, and up to how often where none has ended with a container: most end with a refusal."""


def rounds(won: set[Any]) -> Iterator[None]:
    """Of a race with somebody: so many, and more until `won` has something in it."""
    for number in range(MOST):
        if number >= ROUNDS and won:
            return
        yield


def test_a_volume_whose_place_turns_into_a_link_meanwhile(oci: Oci, tmp_path: Path) -> None:
    """CVE-2021-30465, through the whole runtime; tests/steps/test_volume.py does it step by step and more often."""
    for name in ("host", "volume"):
        (tmp_path / name).mkdir()
    (tmp_path / "volume/token").write_text("in the volume")
    (oci.rootfs / "place").mkdir()
    (oci.rootfs / "link").symlink_to(tmp_path / "host")

    def change(config: Config) -> None:
        config["root"]["readonly"] = False  # the mount point is made
        config["mounts"].append(
            {"destination": "/place/a/b", "type": "bind", "source": str(tmp_path / "volume"), "options": ["rbind"]}
        )

    seen = set[str]()
    with swapping(oci.rootfs / "place", oci.rootfs / "link"):
        for _ in rounds(seen):
            if "in the volume" in (said := oci.run("sh", "-c", "cat /*/a/b/token", change=change)):
                seen.add(said)
            assert os.listdir(tmp_path / "host") == []
    assert seen


def test_a_root_that_turns_into_a_link_meanwhile(oci: Oci, tmp_path: Path) -> None:
    """Whose bundle changes under our hands gets one root or the other, perhaps without mounts: never one unprotected."""
    other = tmp_path / "other"
    shutil.copytree(oci.rootfs, other, symlinks=True)
    (oci.place / "bundle/link").symlink_to(other)
    (oci.rootfs / "mark-rootfs").touch()
    (other / "mark-other").touch()
    script = "ls -d /mark-*; cat /proc/self/mountinfo | cut -d' ' -f 5; (: >> /new) && echo writable"
    seen = set[str]()
    with swapping(oci.rootfs, oci.place / "bundle/link"):
        for _ in rounds(seen):
            said = oci.run("sh", "-c", script)
            first, *rest = said.split("\n")
            if first.startswith("minicontainer-runtime: "):
                assert said.count("\n") == 1
                continue
            seen.add(first)
            assert "writable" not in rest, said
            for place, protected in (("/proc", "/proc/sys"), ("/sys", "/sys/firmware")):
                assert protected in rest or place not in rest, said
    assert seen and seen <= {"/mark-rootfs", "/mark-other"}


CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")


@pytest.mark.parametrize("fake", ["link", "file", "zero", "fifo", "missing"])
def test_a_null_device_of_the_images_own(oci: Oci, fake: str) -> None:
    """CVE-2025-31133: without a tmpfs on /dev, what masks is the image's, and a link to where it wants to write."""
    null = oci.rootfs / "dev/null"
    null.parent.mkdir(exist_ok=True)
    null.unlink(missing_ok=True)
    if fake == "link":
        null.symlink_to(CORE_PATTERN)
    elif fake == "file":
        null.touch()
    elif fake == "zero":
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    elif fake == "fifo":
        os.mkfifo(null)

    def change(config: Config) -> None:
        config["mounts"] = [one for one in config["mounts"] if not one["destination"].startswith("/dev")]

    before = CORE_PATTERN.read_text()
    said = oci.run("sh", "-c", "echo started; (: >> /proc/kcore) && echo reached", change=change)
    assert "started" not in said and "null" in said and said.count("\n") == 1, said
    assert CORE_PATTERN.read_text() == before


def test_a_console_that_is_a_link(oci: Oci) -> None:
    """CVE-2025-52565: what is mounted on /dev/console is mounted on what it leads to."""
    (oci.rootfs / "target").write_text("kept")
    for name in ("dev", "dev/pts"):
        (oci.rootfs / name).mkdir(exist_ok=True)
    (oci.rootfs / "dev/console").symlink_to("/target")
    if not (oci.rootfs / "dev/null").exists():
        os.mknod(oci.rootfs / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))

    def change(config: Config) -> None:
        config["process"]["terminal"] = True
        config["mounts"] = [
            one for one in config["mounts"] if one["destination"] not in ("/dev", "/dev/shm", "/dev/mqueue")
        ]

    oci.bundle("sh", "-c", "echo started; cut -d' ' -f5 /proc/self/mountinfo", change=change)
    said = in_a_terminal(oci.line("run", *oci.where(), "c"))
    assert "started" not in said and "console" in said, said
    (oci.rootfs / "dev/console").unlink()
    (oci.rootfs / "dev/console").touch()
    said = in_a_terminal(oci.line("run", *oci.where(), "c"))
    assert "started" in said and "/dev/console" in said and "/target" not in said, said


@pytest.mark.parametrize("fake", ["directory", "link", "tmpfs", "volume"])
def test_a_proc_that_is_none(oci: Oci, tmp_path: Path, fake: str) -> None:
    """CVE-2025-52881, CVE-2019-16884: labels, sysctls and masks would go to files of the image's, and nobody be held."""
    (tmp_path / "fake").mkdir()
    for top in (oci.rootfs / "proc", oci.rootfs / "elsewhere", tmp_path / "fake"):
        for file in ("self/attr/exec", "self/attr/apparmor/exec", "sys/net/ipv4/ip_forward", "kcore", "bus/x"):
            (top / file).parent.mkdir(parents=True, exist_ok=True)
            (top / file).write_text("fake")

    def change(config: Config) -> None:
        config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
        config["process"] |= {"apparmorProfile": "none-such", "selinuxLabel": "a:b:c:s0"}
        mounts = [one for one in config["mounts"] if one["destination"] != "/proc" or fake == "link"]
        if fake == "tmpfs":
            mounts.insert(0, {"destination": "/proc", "type": "tmpfs", "source": "tmpfs"})
        if fake == "volume":
            mounts.insert(
                0, {"destination": "/proc", "type": "bind", "source": f"{tmp_path}/fake", "options": ["rbind"]}
            )
        config["mounts"] = mounts

    if fake == "link":
        shutil.rmtree(oci.rootfs / "proc")
        (oci.rootfs / "proc").symlink_to("elsewhere")
    said = oci.run("echo", "started", change=change)
    files = [
        path
        for top in (oci.rootfs, tmp_path / "fake")
        for path in top.rglob("*")
        if path.name in ("exec", "ip_forward")
    ]
    assert all(path.read_text() == "fake" for path in files) and files
    if fake != "tmpfs":  # which is an empty one, with nothing to be masked in it
        assert "started" not in said and said.count("\n") == 1, said


# CVE-2022-0492 and its kin: files with which the host's kernel starts a program, as the host's root


REACH = """
try() { [ -e "$1" ] && (: >> "$1") 2> /dev/null && echo "reached $1"; }
# Opened for writing, and nothing written: what works here is the host's.
try_all() {
    for file in $1/sys/kernel/core_pattern $1/sys/kernel/modprobe $1/sys/kernel/hotplug $1/sysrq-trigger \
        $1/sys/fs/binfmt_misc/register $1/sys/vm/panic_on_oom $1/kcore $1/irq/default_smp_affinity; do try $file; done
    for file in /sys/kernel/uevent_helper /sys/fs/cgroup/release_agent /sys/fs/cgroup/*/release_agent \
        /sys/fs/cgroup/*/notify_on_release /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/tasks \
        /sys/module/*/parameters/* /mnt/release_agent; do try $file; done
}
try_all /proc
for what in /proc/sys /sys /sys/fs/cgroup/* /proc/kcore; do
    mount -o remount,rw,bind $what 2> /dev/null && echo "remounted $what"
    umount $what 2> /dev/null && echo "unmounted $what"
done
mkdir -p /tmp/proc
mount -t proc proc /tmp/proc 2> /dev/null && echo "mounted proc" && try_all /tmp/proc
mount -t sysfs sysfs /mnt 2> /dev/null && echo "mounted sysfs" && try /mnt/kernel/uevent_helper && umount /mnt
for tree in memory rdma pids cpu freezer; do
    mount -t cgroup -o $tree cgroup /mnt 2> /dev/null && echo "mounted $tree" && try /mnt/release_agent && umount /mnt
done
"""


@pytest.mark.parametrize("way", ["as it is", "in a user namespace", "in user, mount and PID namespaces"])
def test_no_file_that_makes_the_kernel_start_a_program_is_reached(oci: Oci, way: str) -> None:
    """CVE-2022-0492: with unshare(1), too, which a container without a seccomp profile may."""
    (oci.rootfs / "mnt").mkdir(exist_ok=True)
    prefix = {"as it is": "sh", "in a user namespace": "unshare -Urm sh"}.get(way, "unshare -Urmpf sh")

    def change(config: Config) -> None:
        config["root"]["readonly"] = False
        config["mounts"] = [one for one in config["mounts"] if one["destination"] != "/tmp"]

    said = oci.run("sh", "-c", f"{prefix} -c {shlex.quote(REACH)}; echo tried", change=change)
    assert said.endswith("tried\n"), said
    for word in ("reached", "remounted", "unmounted"):
        assert word not in said, said


def test_the_files_are_there_and_can_be_written_to_from_outside() -> None:
    """Or the attempts above would show nothing."""
    assert os.access(CORE_PATTERN, os.W_OK)


# Signals, ptrace(2), and what is read of other processes


RIGHTS = tuple(default_config()["process"]["capabilities"]["bounding"])


def test_the_program_cannot_touch_its_parent(nursery: Nursery) -> None:
    """Process 1 is ours where it reaps: /proc/1/exe is the host's interpreter, and its memory is what we are."""
    process = nursery.spec("sh", "-c", f"{LOOK_INTO_1} kill -9 1; kill -STOP 1; echo tried").process
    sets = CapabilitySets(bounding=RIGHTS, effective=RIGHTS, permitted=RIGHTS)
    out = nursery.run("true", process=process.replace(capabilities=sets)).out
    assert out.endswith("tried\n")
    for word in ("read ", "opened ", "listed ", "climbed "):
        assert word not in out, out


ATTACK_PID = """
import ctypes, os, signal
libc, found = ctypes.CDLL(None, use_errno=True), []
def attempt(what, act):
    try:
        act()
        found.append(what)
    except OSError as error:
        pass
def ptrace(pid):
    for request in (16, 0x4206):  # PTRACE_ATTACH, PTRACE_SEIZE
        if libc.ptrace(request, pid, 0, 0) == 0:
            found.append(f"ptrace {pid}")
def reads(pid):
    local, remote = ctypes.create_string_buffer(8), 0x400000
    class Piece(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
    ours, theirs = Piece(ctypes.addressof(local), 8), Piece(remote, 8)
    if libc.process_vm_readv(pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0) > 0:
        found.append(f"process_vm_readv {pid}")
def getfd(pid):
    pidfd = os.pidfd_open(pid)
    for fd in range(64):
        if libc.syscall(438, pidfd, fd, 0) >= 0:
            found.append(f"pidfd_getfd {pid} {fd}")
"""


def test_before_the_start_process_1_cannot_be_traced(oci: Oci) -> None:
    oci.create("sleep", "600", change=with_python)
    code = (
        ATTACK_PID
        + "attempt('mem', lambda: open('/proc/1/mem', 'r+b')); ptrace(1); reads(1); getfd(1); print('found', found)"
    )
    assert oci.exec(*python(code)) == "found []\n"


def test_the_same_works_on_a_process_of_the_containers_own(oci: Oci) -> None:
    """Or the attempts above would show nothing."""
    code = ATTACK_PID + (
        "pid = os.fork()\nif pid == 0: signal.pause()\n"
        "reads(pid); getfd(pid); ptrace(pid); os.kill(pid, 9); print({word.split()[0] for word in found} == "
        "{'ptrace', 'process_vm_readv', 'pidfd_getfd'} or found)"
    )
    said = oci.run(*python(code), change=with_python)
    assert "ptrace" in said or said == "True\n", said
    assert "pidfd_getfd" in said or said == "True\n", said


WATCH = """
echo watching
while true; do
    for entry in /proc/[0-9]*; do
        pid=${entry#/proc/}
        [ $pid = 1 ] || [ $pid = $$ ] && continue
        read -r name < $entry/comm || continue
        seen=
        { true <> $entry/mem; } && seen="$seen mem"
        { true < $entry/environ; } && seen="$seen environ"
        { true <> $entry/fd/9; } && seen="$seen fd9"
        { true < $entry/exe; } && seen="$seen exe"
        read -r after < $entry/comm || continue
        [ "$name" = "$after" ] && echo "saw $name:$seen"
    done
done 2> /dev/null
"""


def test_whoever_enters_is_not_looked_into_on_the_way(oci: Oci) -> None:
    """CVE-2016-9962: a process that joins is already in sight of the container's own, and has files of the host's."""
    oci.create("sh", "-c", WATCH)
    watched = oci.place / f"said{oci.count - 1}"
    assert oci("start", "c").returncode == 0
    wait_until(lambda: "watching" in watched.read_text(), "somebody watches")

    def saw_one_of_us() -> bool:
        assert oci("exec", "c", "true").returncode == 0
        return any(line.startswith("saw ") and comm(line) in OURS for line in watched.read_text().splitlines())

    for _ in range(10):
        saw_one_of_us()
    wait_until(saw_one_of_us, "the watcher has seen somebody on his way in")
    for line in watched.read_text().splitlines():
        if line.startswith("saw ") and comm(line) in OURS:
            assert line.endswith(":"), line


OURS = {
    INSTALLED.name[:15],
    Path(sys.executable).name[:15],
    os.path.basename(os.path.realpath(sys.executable))[:15],
    "python",
    "python3",
}


def comm(line: str) -> str:
    """Whom a line of the watcher's is about."""
    return line.removeprefix("saw ").rpartition(":")[0]


def test_the_hosts_environment_is_nobodys(oci: Oci, nursery: Nursery) -> None:
    """Not in /proc/PID/environ, and not in the program's own, of none of the processes that there are."""
    environment = {**os.environ, "SECRET": SECRET}
    pid = oci.create("sh", "-c", "env; cat /proc/*/environ; exec sleep 600", env=environment)
    assert SECRET.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    assert b"minicontainer" in Path(f"/proc/{pid}/cmdline").read_bytes()
    written = oci.place / f"said{oci.count - 1}"
    assert oci("start", "c", env=environment).returncode == 0
    wait_until(lambda: "PATH=" in written.read_text(), "the program has looked")
    assert SECRET not in written.read_text()
    assert SECRET not in oci("exec", "c", "sh", "-c", "env; cat /proc/*/environ", env=environment).stdout

    os.environ["SECRET"] = SECRET
    try:
        running = nursery.start("sleep", "600")
    finally:
        del os.environ["SECRET"]
    program = wait_until(lambda: children(running.pid), "process 1 has a child")[0]
    for pid in (running.pid, program):
        assert SECRET.encode() not in Path(f"/proc/{pid}/environ").read_bytes()


# CVE-2017-5226: typing into the caller's terminal


TYPE = """
import fcntl, os, termios
for fd in (0, 1, 2):
    for call, argument in ((termios.TIOCSCTTY, 0), (termios.TIOCSCTTY, 1), (0x5412, b"x")):
        try:
            fcntl.ioctl(fd, call, argument)
            print("did", hex(call))
        except OSError as error:
            pass
try:
    os.open("/dev/tty", os.O_RDWR)
    print("did open /dev/tty")
except OSError:
    pass
print("tried", os.isatty(0))
"""


def in_a_terminal(line: list[str]) -> str:
    """What a command writes that a user starts at a terminal, which controls his session; ^C and all."""
    pid, master = pty.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.execv(line[0], line)
        os._exit(127)
    said = b""
    try:
        while select.select([master], [], [], DEADLINE)[0]:
            try:
                said += os.read(master, 1 << 16)
            except OSError:  # EIO: nobody has the other side open
                break
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(master)
    return said.decode(errors="replace").replace("\r", "")


def test_nothing_is_typed_into_the_callers_terminal(oci: Oci) -> None:
    """CVE-2017-5226: with the terminal of whoever started it as its standard input. Without a seccomp profile."""
    oci.bundle(*python(TYPE), change=with_python)
    assert in_a_terminal(oci.line("run", *oci.where(), "c")) == "tried True\n"
    # The attempt is one: who is of the terminal's session may, unless a setting of the kernel forbids it to everybody.
    setting = Path("/proc/sys/dev/tty/legacy_tiocsti")
    if not setting.exists() or setting.read_text().strip() == "1":
        assert "did 0x5412" in in_a_terminal(python(TYPE))


def test_a_namespace_of_the_hosts_is_not_needed_for_any_of_this() -> None:
    """What the tests above rely on: the default shares nothing but users."""
    kinds = {one["type"] for one in default_config()["linux"]["namespaces"]}
    assert kinds == {kind.name.lower() for kind in Namespace} - {"user", "time"}


def test_the_page_names_every_one_of_these_tests_and_none_that_is_not() -> None:
    """docs/SECURITY.md, whose rows are the attacks."""
    page = (CHECKOUT / "docs/SECURITY.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page))
    for file, function in named:
        assert f"\ndef {function}(" in (CHECKOUT / file).read_text(encoding="utf-8"), f"{file}::{function}"
    ours = {name for name in globals() if name.startswith("test_")} - {
        "test_the_page_names_every_one_of_these_tests_and_none_that_is_not"
    }
    assert ours <= {function for _, function in named}, ours - {function for _, function in named}
    for file, name in set(re.findall(r"`((?:minicontainer)/[\w/]+\.py): (\w+)`", page)):
        assert re.search(
            rf"\b(def|class) {name}\b|^{name}\b", (CHECKOUT / file).read_text(encoding="utf-8"), re.MULTILINE
        ), f"{file}: {name}"
