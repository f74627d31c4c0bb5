"""podman drives minicontainer-runtime: root's with its bridge, an ordinary user's with slirp4netns, in a corner of their own.

What podman is told here it was told with crun 1.8.1 as well, which answered the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import random
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command import DEADLINE, end, needs_root, wait_until
from tests.stage import Stage, needs_v1, stage

pytestmark = [
    needs_root,
    needs_v1,
    pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed"),
]

RUNTIME = Path(sys.executable).with_name("minicontainer-runtime")
UID = 61234
CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]  # root here may raise none
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'


class Podman:
    """Podman on a stage, of root or of somebody else, with one image: box."""

    def __init__(self, place: Stage, home: str, rootfs: str, become: tuple[str, ...] = ()) -> None:
        self.stage, self.home = place, Path(home)
        inside = place.path(home)
        (inside / "run").mkdir(parents=True, exist_ok=True)
        (inside / "containers.conf").write_text(CONF)
        self._become = become
        self._env = {
            "CONTAINERS_CONF": f"{home}/containers.conf",
            "HOME": home,
            "XDG_RUNTIME_DIR": f"{home}/run",
            "TMPDIR": home,
        }
        policy = place.path("/etc/containers/policy.json")
        policy.parent.mkdir(exist_ok=True)
        policy.write_text(POLICY)
        with subprocess.Popen(["tar", "-C", rootfs, "-c", "."], stdout=subprocess.PIPE) as tar:
            if become:
                for path in (inside, inside / "run"):
                    os.chown(path, UID, UID)
            done = self("import", "-", "box", stdin=tar.stdout)
        assert done.returncode == 0, done.stderr

    def words(self, *words: object) -> list[str]:
        """The words of a command."""
        own = [f"--{name}={self.home}/{name}" for name in ("root", "runroot")]
        own += [] if self._become else [f"--tmpdir={self.home}/tmp"]
        storage = "vfs" if self._become else "overlay"
        return [*self._become, "podman", *own, f"--storage-driver={storage}", f"--runtime={RUNTIME}", *map(str, words)]

    def __call__(self, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return self.stage.run(*self.words(*words), env=self._env, cwd="/", **options)

    def ok(self, *words: object, **options: Any) -> str:
        """What it writes, when it goes well."""
        done = self(*words, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def begin(self, *words: object, **options: Any) -> subprocess.Popen[str]:
        """Run it beside us."""
        return self.stage.start(*self.words(*words), env=self._env, cwd="/", **options)

    def run(self, *words: object) -> str:
        """`podman run --rm --network none`; what the program writes, with what it complains of."""
        done = self("run", "--rm", "--network=none", *words)
        return done.stdout + done.stderr

    def of(self, name: str, what: str) -> Any:
        """A part of what `podman inspect` says."""
        return json.loads(self.ok("inspect", "--format", f"{{{{json .{what}}}}}", name))

    def cleared(self) -> None:
        """Remove every container. Then nothing is left of them: no state of the runtime's, no group, no process."""
        done = self("rm", "--force", "--time=0", "--all")
        assert done.returncode == 0, done.stderr
        assert self.ok("ps", "--all", "--quiet") == ""
        state = self.stage.path("/run/minicontainer-runtime")
        assert not state.exists() or not os.listdir(state)
        groups = [group for top in self.stage.groups for group in top.glob("libpod_parent/libpod-*")]
        assert not groups or not wait_until(
            lambda: not [group for group in groups if group.exists()], "groups are gone"
        )
        wait_until(lambda: not self.stage.processes(), "every process is gone")


@pytest.fixture
def podman(busybox: str) -> Iterator[Podman]:
    with stage(f"podman-{os.getpid()}") as place:
        podman = Podman(place, "/run/podman-of-root", busybox)
        yield podman
        podman.cleared()


def test_run(podman: Podman) -> None:
    done = podman("run", "--rm", "--network=none", "box", "sh", "-c", "echo my number is $$; echo oh >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("my number is 1\n", "oh\n", 7)
    assert podman.ok("run", "--rm", "-i", "--network=none", "box", "cat", stdin=None, input="typed\n") == "typed\n"
    assert podman("run", "--rm", "--network=none", "box", "sh", "-c", "kill -KILL $$; exit 3").returncode == 3
    missing = podman("run", "--rm", "--network=none", "box", "nope")
    assert missing.returncode == 126 and "nope: not found in the container's PATH" in missing.stderr
    wrong = podman("run", "--rm", "--network=none", "--sysctl=net.nope=1", "box", "true")
    assert wrong.returncode in (126, 127) and "nope" in wrong.stderr and wrong.stderr.count("\n") == 1


def test_a_life(podman: Podman) -> None:
    podman.ok("run", "-d", "--name=c1", "--network=none", "box", "sh", "-c", "echo out; echo err >&2; trap 'exit 9' TERM; "
              "trap 'echo heard' USR1; while :; do sleep 0.05; done")  # fmt: skip
    pid = podman.of("c1", "State.Pid")
    assert podman.of("c1", "State.Status") == "running" and pid in map(
        int, podman.stage.run("pgrep", "sh").stdout.split()
    )
    assert podman.of("c1", "OCIRuntime") == str(RUNTIME)
    assert "c1" in podman.ok("ps")
    podman.ok("kill", "--signal=USR1", "c1")
    wait_until(lambda: podman("logs", "c1").stdout == "out\nheard\n", "both lines are in the log")
    assert podman("logs", "c1").stderr == "err\n"

    done = podman(
        "exec", "--user=1000:1000", "--workdir=/tmp", "--env=A=b", "c1", "sh", "-c", "id -u; pwd; echo $A; exit 5"
    )
    assert (done.stdout, done.returncode) == ("1000\n/tmp\nb\n", 5)
    podman.ok("exec", "--detach", "c1", "touch", "/detached")
    wait_until(lambda: podman("exec", "c1", "test", "-e", "/detached").returncode == 0, "the detached program has run")
    for program, status in (("nope", 127), ("/etc", 126)):
        assert podman("exec", "c1", program).returncode == status
    [used] = json.loads(podman.ok("stats", "--no-stream", "--format=json", "c1"))
    assert used["name"] == "c1" and int(used["pids"]) >= 1 and not used["mem_usage"].startswith("0B")
    assert "trap" in podman.ok("top", "c1", "args")

    podman.ok("pause", "c1")
    assert podman.of("c1", "State.Status") == "paused"
    assert podman("exec", "c1", "true").returncode != 0
    podman.ok("unpause", "c1")
    podman.ok("exec", "c1", "true")
    podman.ok("stop", "--time=20", "c1")
    assert podman.of("c1", "State.ExitCode") == 9, "it was SIGTERM that ended it"
    podman.ok("start", "c1")
    podman.ok("restart", "--time=20", "c1")
    assert podman.of("c1", "State.Status") == "running" and podman.of("c1", "State.Pid") != pid
    podman.ok("kill", "c1")
    assert podman.ok("wait", "c1") == "137\n"
    podman.ok("rm", "c1")


def test_networks(podman: Podman) -> None:
    """Its bridge, address translation for a published port, and the network of another container."""
    serve = "mkdir /w; echo page > /w/index.html; exec httpd -f -p 80 -h /w"
    podman.ok("run", "-d", "--name=web", "--publish=8080:80", "box", "sh", "-c", serve)
    address = podman.of("web", "NetworkSettings.IPAddress")
    assert address.startswith("10.88.")
    fetched = wait_until(lambda: podman.stage.run("busybox", "wget", "-qO-", f"http://{address}/").stdout, "it serves")
    assert fetched == "page\n"
    assert podman.stage.run("busybox", "wget", "-qO-", "http://127.0.0.1:8080/").stdout == "page\n"
    assert podman.ok("run", "--rm", "box", "wget", "-qO-", f"http://{address}/") == "page\n"
    beside = podman.ok("run", "--rm", "--network=container:web", "--pid=container:web", "box", "sh", "-c",
                       "wget -qO- http://127.0.0.1/; ps")  # fmt: skip
    assert beside.startswith("page\n") and "httpd -f" in beside
    assert podman.run("box", "ls", "/sys/class/net") == "lo\n"


OPTIONS: list[tuple[list[str], str, str]] = [
    (["--read-only"], "touch /tmp/x; touch /x", "touch: /x: Read-only file system\n"),
    (["--cap-drop=all"], "grep CapEff /proc/self/status", "CapEff:\t0000000000000000\n"),
    (["--user=1000:1001"], "id -u; id -g; grep CapEff /proc/self/status", "1000\n1001\nCapEff:\t0000000000000000\n"),
    (["--volume=/etc:/data:ro"], "test -e /data/passwd; touch /data/x", "touch: /data/x: Read-only file system\n"),
    (["--memory=32m", "--pids-limit=10"], "cat memory/memory.limit_in_bytes pids/pids.max", "33554432\n10\n"),
    (["--memory=16m"], "tail /dev/zero; echo $?", "137\nKilled\n"),
    (["--cpus=0.5", "--cpu-shares=99"], "cat cpu/cpu.cfs_quota_us cpu/cpu.shares", "50000\n99\n"),
    (["--cpuset-cpus=0"], "nproc", "1\n"),
    (["--tmpfs=/t:size=1m", "--shm-size=2m"], "df /t /dev/shm | tail -n +2 | awk '{print $2}'", "1024\n2048\n"),
    (["--sysctl=kernel.msgmax=1000"], "cat /proc/sys/kernel/msgmax", "1000\n"),
    (["--ulimit=nofile=100:100", "--ulimit=nproc=100:100"], "ulimit -n", "100\n"),
    (["--device=/dev/null:/dev/mine"], "ls -n /dev/mine | awk '{print $1, $5, $6}'", "crw-rw-rw- 1, 3\n"),
    (["--security-opt=seccomp=unconfined"], "grep Seccomp: /proc/self/status", "Seccomp:\t0\n"),
    (
        ["--security-opt=no-new-privileges"],
        "grep -E '^(NoNew|Seccomp:)' /proc/self/status",
        "NoNewPrivs:\t1\nSeccomp:\t2\n",
    ),
    (["--hostname=hey", "--oom-score-adj=100"], "hostname; cat /proc/self/oom_score_adj", "hey\n100\n"),
    (["--uidmap=0:100000:1000"], "id -u; tr -s ' ' < /proc/self/uid_map", "0\n 0 100000 1000\n"),
    (["--cgroupns=private"], "grep pids: /proc/self/cgroup | cut -d: -f3", "/\n"),
    (["--env=A=b", "--workdir=/tmp"], "echo $A; pwd", "b\n/tmp\n"),
    (["--uts=host", "--pid=host", "--ipc=host"], "ps | grep -c '[c]onmon'", "1\n"),
]
"""Options; what looks, beginning in /sys/fs/cgroup unless a directory is asked for; and what it finds."""


def test_options(podman: Podman) -> None:
    owner = os.stat("/dev/null").st_uid
    for options, script, said in OPTIONS:
        options = options if any("workdir" in option for option in options) else [*options, "--workdir=/sys/fs/cgroup"]
        assert podman.run(*options, "box", "sh", "-c", script) == said, options
    assert os.stat("/dev/null").st_uid == owner, (
        "conmon gives the host's to who runs in a user namespace, too: nobody's to be given away"
    )


def test_a_terminal(podman: Podman) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    run = podman.begin("run", "--rm", "-it", "--network=none", "box", "sh", stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    said = b""
    try:
        os.write(master, b"until test `stty size | tr -d ' '` = 3377; do :; done; echo size-; tty; exit 6\n")
        with contextlib.suppress(OSError):  # EIO: nobody has the other side any more
            while data := os.read(master, 1 << 12):
                said += data
        assert run.wait(DEADLINE) == 6
    finally:
        os.close(master)
        end([run.pid])
        run.wait()
    assert b"size-\r\n/dev/pts/0\r\n" in said, said


def test_health(podman: Podman) -> None:
    podman.ok("run", "-d", "--name=h", "--network=none", "--health-cmd=test -e /well", "--health-interval=disable",
              "--health-retries=1", "box", "sleep", "600")  # fmt: skip
    assert podman("healthcheck", "run", "h").returncode == 1
    podman.ok("exec", "h", "touch", "/well")
    podman.ok("healthcheck", "run", "h")
    assert podman.of("h", "State.Health.Status") == "healthy"


def test_files_in_and_out(podman: Podman, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("file\n")
    podman.ok("run", "-d", "--name=c1", "--network=none", "box", "sleep", "600")
    podman.ok("cp", tmp_path / "in", "c1:/tmp/in")
    assert podman.ok("exec", "c1", "cat", "/tmp/in") == "file\n"
    assert "A /tmp/in" in podman.ok("diff", "c1")
    podman.ok("commit", "--quiet", "c1", "box2")
    assert podman.run("box2", "cat", "/tmp/in") == "file\n"


def test_killed_at_any_moment(podman: Podman) -> None:
    """SIGKILL for podman, its monitors, the runtime and process 1 while containers are made: all can be cleared away."""
    chance = random.Random(5)
    state = podman.stage.path("/run/minicontainer-runtime")
    begun = [podman.begin("run", "-d", f"--name=s{number}", "--network=none", "box", "sleep", "600",
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
             for number in range(12)]  # fmt: skip
    for many in range(8):  # as soon as so many are in the making, or have been made
        wait_until(
            lambda many=many: (
                (state.exists() and len(os.listdir(state)) > many)
                or all(process.poll() is not None for process in begun)
            ),
            f"more than {many} containers",
        )
        processes = podman.stage.processes()
        end([chance.choice(processes)] if processes else [])
    for process in begun:
        process.wait(DEADLINE)
    end(podman.stage.named("conmon")[::2])
    # At its first try it may stumble over what it had mounted when it was killed.
    remove = ["rm", "--force", "--time=0", "--all"]
    wait_until(lambda: podman(*remove).returncode == 0, "podman has removed all that it knows")
    # Of a container that podman was just making when it was killed podman knows nothing: the runtime does.
    own = [RUNTIME, "--root=/run/minicontainer-runtime"]
    assert "running" not in podman.stage.run(*own, "list").stdout
    for name in os.listdir(state):
        assert podman.stage.run(*own, "delete", "--force", name).returncode == 0


def test_an_ordinary_users(busybox: str) -> None:
    if missing := [name for name in ("newuidmap", "slirp4netns") if not shutil.which(name)]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if not RUNTIME_FOR_ALL:
        pytest.skip(f"an ordinary user cannot get at {RUNTIME}")
    with stage(f"podman-user-{os.getpid()}") as place:
        for file, line in (("passwd", f"pupil:x:{UID}:{UID}::/run/pupil:/bin/sh"), ("group", f"pupil:x:{UID}:"),
                           ("subuid", "pupil:500000:65536"), ("subgid", "pupil:500000:65536")):  # fmt: skip
            with place.path(f"/etc/{file}").open("a") as opened:
                opened.write(f"{line}\n")
        become = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
        podman = Podman(place, "/run/pupil", busybox, become)
        said = podman.run("box", "sh", "-c", "id -u; tr -s ' ' < /proc/self/uid_map")
        assert said == f"0\n 0 {UID} 1\n 1 500000 65536\n"
        assert podman.run("--userns=keep-id", "box", "id", "-u") == f"{UID}\n"
        serve = "mkdir /w; echo page > /w/index.html; exec httpd -f -p 80 -h /w"
        podman.ok("run", "-d", "--name=web", "--publish=8080:80", "box", "sh", "-c", serve)
        fetch = ["busybox", "wget", "-qO-", "http://127.0.0.1:8080/"]
        assert wait_until(lambda: place.run(*fetch).stdout, "it serves") == "page\n"
        assert podman("exec", "--user=7", "web", "sh", "-c", "id -u; exit 5").stdout == "7\n"
        podman.ok("stop", "--time=0", "web")
        podman.ok("rm", "web")
        assert podman.ok("ps", "--all", "--quiet") == ""


def _all_may_run(program: Path) -> bool:
    done = subprocess.run(
        ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", program, "--version"], capture_output=True
    )
    return done.returncode == 0


RUNTIME_FOR_ALL = os.geteuid() == 0 and shutil.which("setpriv") is not None and _all_may_run(RUNTIME)
