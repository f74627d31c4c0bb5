"""dockerd, with its containerd and shims, drives minicontainer-runtime: a daemon of the test's own, in a corner of its own.

What it is told here it was told with runc 1.1.5 as well, which answered the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import shutil
import signal
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

DOCKERD = shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
MISSING = [name for name in ("docker", "containerd", "containerd-shim-runc-v2") if not shutil.which(name)]
pytestmark = [
    needs_root,
    needs_v1,
    pytest.mark.skipif(not DOCKERD or bool(MISSING), reason=f"not installed: {', '.join(['dockerd', *MISSING])}"),
]

RUNTIME = Path(sys.executable).with_name("minicontainer-runtime")
HOME = "/run/docker-of-test"
OPTIONS: list[tuple[list[str], str, str]] = [
    (["--read-only"], "touch /x", "touch: /x: Read-only file system\n"),
    (["--cap-drop=all"], "grep CapEff /proc/self/status", "CapEff:\t0000000000000000\n"),
    (["--user=1000:1001"], "id -u; id -g; grep CapEff /proc/self/status", "1000\n1001\nCapEff:\t0000000000000000\n"),
    (["--volume=/etc:/data:ro"], "test -e /data/passwd; touch /data/x", "touch: /data/x: Read-only file system\n"),
    (["--memory=32m", "--pids-limit=10"], "cat memory/memory.limit_in_bytes pids/pids.max", "33554432\n10\n"),
    (["--cpus=0.5", "--cpu-shares=99"], "cat cpu/cpu.cfs_quota_us cpu/cpu.shares", "50000\n99\n"),
    (["--cpuset-cpus=0"], "nproc", "1\n"),
    (["--tmpfs=/t:size=1m", "--shm-size=2m"], "df /t /dev/shm | tail -n +2 | awk '{print $2}'", "1024\n2048\n"),
    (["--sysctl=kernel.msgmax=1000"], "cat /proc/sys/kernel/msgmax", "1000\n"),
    (["--ulimit=nofile=100:100"], "ulimit -n", "100\n"),
    (["--device=/dev/null:/dev/mine"], "ls -n /dev/mine | awk '{print $1, $5, $6}'", "crw-rw-rw- 1, 3\n"),
    (["--security-opt=seccomp=unconfined"], "grep Seccomp: /proc/self/status", "Seccomp:\t0\n"),
    (
        ["--security-opt=no-new-privileges"],
        "grep -E '^(NoNew|Seccomp:)' /proc/self/status",
        "NoNewPrivs:\t1\nSeccomp:\t2\n",
    ),
    (["--hostname=hey", "--oom-score-adj=100"], "hostname; cat /proc/self/oom_score_adj", "hey\n100\n"),
    (["--cgroupns=private"], "grep pids: /proc/self/cgroup | cut -d: -f3", "/\n"),
    (["--env=A=b", "--workdir=/new/place"], "echo $A; pwd", "b\n/new/place\n"),
    (["--uts=host", "--pid=host", "--ipc=host"], "ps | grep -c '[d]ockerd'", "1\n"),
    (["--privileged"], "test -e /dev/loop-control -o -e /dev/kmsg; echo $?", "0\n"),
]
"""Options; what looks, beginning in /sys/fs/cgroup unless a directory is asked for; and what it finds."""


class Docker:
    """A daemon on a stage, with one image: box."""

    def __init__(self, place: Stage, rootfs: str) -> None:
        self.stage, self.home = place, place.path(HOME)
        self.home.mkdir()
        settings = {
            "runtimes": {"ours": {"path": str(RUNTIME)}}, "default-runtime": "ours", "hosts": [f"unix://{HOME}/socket"],
            "data-root": f"{HOME}/data", "exec-root": f"{HOME}/exec", "pidfile": f"{HOME}/pid", "bip": "10.99.0.1/24",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
        }  # fmt: skip
        (self.home / "daemon.json").write_text(json.dumps(settings))
        with (self.home / "log").open("w") as log:
            self.daemon = place.start(str(DOCKERD), f"--config-file={HOME}/daemon.json", stdout=log, stderr=log)
        wait_until(lambda: self("version").returncode == 0 or self.daemon.poll() is not None, "dockerd answers")
        assert self.daemon.poll() is None, self.log()
        with subprocess.Popen(["tar", "-C", rootfs, "-c", "."], stdout=subprocess.PIPE) as tar:
            done = self("import", "-", "box", stdin=tar.stdout)
        assert done.returncode == 0, done.stderr

    def __call__(self, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command of the client's to its end."""
        return self.stage.run(
            "docker", *map(str, words), env={"DOCKER_HOST": f"unix://{HOME}/socket", "HOME": HOME}, **options
        )

    def ok(self, *words: object, **options: Any) -> str:
        """What it writes, when it goes well."""
        done = self(*words, **options)
        assert done.returncode == 0, f"{done.stderr}\n{self.log()}"
        return done.stdout

    def run(self, *words: object) -> str:
        """`docker run --rm --network none`; what the program writes, with what it complains of."""
        done = self("run", "--rm", "--network=none", *words)
        return done.stdout + done.stderr

    def of(self, name: str, what: str) -> Any:
        """A part of what `docker inspect` says."""
        return json.loads(self.ok("inspect", "--format", f"{{{{json .{what}}}}}", name))

    def log(self) -> str:
        """The end of what the daemon has to say."""
        return (self.home / "log").read_text()[-3000:]

    def close(self) -> None:
        """Remove every container, and stop the daemon. Nothing is left of the containers."""
        if names := self.ok("ps", "--all", "--quiet").split():
            self.ok("rm", "--force", *names)
        wait_until(lambda: not list((self.home / "exec").rglob("state.json")), "no state is left")
        wait_until(
            lambda: not [group for top in self.stage.groups for group in top.glob("docker/*/")], "no group is left"
        )
        dockerd = int((self.home / "pid").read_text())  # in numbers of the stage
        self.stage.run("kill", str(dockerd))
        assert self.daemon.wait(DEADLINE) == 0, self.log()
        wait_until(lambda: not self.stage.processes(), "no process is left")


@pytest.fixture
def docker(busybox: str) -> Iterator[Docker]:
    with stage(f"docker-{os.getpid()}") as place:
        docker = Docker(place, busybox)
        yield docker
        docker.close()


def test_run(docker: Docker) -> None:
    done = docker("run", "--rm", "--network=none", "box", "sh", "-c", "echo my number is $$; echo oh >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("my number is 1\n", "oh\n", 7)
    assert docker.ok("run", "--rm", "-i", "--network=none", "box", "cat", stdin=None, input="typed\n") == "typed\n"
    for program, status, said in (
        ("nope", 127, "nope: not found in the container's PATH"),
        ("/bin/nope", 127, "/bin/nope: not found"),
        ("/etc", 126, "execve(/etc): permission denied"),
    ):
        refused = docker("run", "--rm", "--network=none", "box", program)
        assert refused.returncode == status and said in refused.stderr, refused.stderr
    wrong = docker("run", "--rm", "--network=none", "--sysctl=net.nope=1", "box", "true")
    assert wrong.returncode in (125, 127) and "net/nope" in wrong.stderr.replace("net.nope", "net/nope"), wrong.stderr
    docker("run", "--name=big", "--network=none", "--memory=32m", "box", "tail", "/dev/zero")
    assert (docker.of("big", "State.ExitCode"), docker.of("big", "State.OOMKilled")) == (137, True)


def test_a_life(docker: Docker) -> None:
    docker.ok("run", "-d", "--name=c1", "--network=none", "box", "sh", "-c", "echo out; echo err >&2; trap 'exit 9' TERM; "
              "trap 'echo heard' USR1; while :; do sleep 0.05; done")  # fmt: skip
    assert docker.of("c1", "State.Status") == "running" and docker.of("c1", "HostConfig.Runtime") == "ours"
    docker.ok("kill", "--signal=USR1", "c1")
    wait_until(lambda: docker("logs", "c1").stdout == "out\nheard\n", "both lines are in the log")
    assert docker("logs", "c1").stderr == "err\n"

    done = docker(
        "exec", "--user=1000:1000", "--workdir=/tmp", "--env=A=b", "c1", "sh", "-c", "id -u; pwd; echo $A; exit 5"
    )
    assert (done.stdout, done.returncode) == ("1000\n/tmp\nb\n", 5)
    docker.ok("exec", "--detach", "c1", "touch", "/detached")
    wait_until(lambda: docker("exec", "c1", "test", "-e", "/detached").returncode == 0, "the detached program has run")
    missing = docker("exec", "c1", "nope")
    assert missing.returncode in (126, 127) and "nope: not found" in missing.stdout + missing.stderr
    used = json.loads(docker.ok("stats", "--no-stream", "--format={{json .}}", "c1"))
    assert used["Name"] == "c1" and int(used["PIDs"]) >= 1 and not used["MemUsage"].startswith("0B")
    assert "trap" in docker.ok("top", "c1")

    docker.ok("pause", "c1")
    assert docker.of("c1", "State.Status") == "paused"
    docker.ok("unpause", "c1")
    docker.ok("update", "--memory=64m", "--memory-swap=64m", "--pids-limit=20", "--cpus=0.7", "c1")
    files = [
        f"/sys/fs/cgroup/{file}" for file in ("memory/memory.limit_in_bytes", "pids/pids.max", "cpu/cpu.cfs_quota_us")
    ]
    assert docker.ok("exec", "c1", "cat", *files) == "67108864\n20\n70000\n"
    docker.ok("stop", "--time=20", "c1")
    assert docker.of("c1", "State.ExitCode") == 9, "it was SIGTERM that ended it"
    docker.ok("start", "c1")
    pid = docker.of("c1", "State.Pid")
    docker.ok("restart", "--time=20", "c1")
    assert docker.of("c1", "State.Status") == "running" and docker.of("c1", "State.Pid") != pid
    docker.ok("kill", "c1")
    assert docker.ok("wait", "c1") == "137\n"
    docker.ok("rm", "c1")


def test_networks_health_and_restarts(docker: Docker) -> None:
    """Its bridge, a published port, a network shared; a program that looks after another; one that is begun again."""
    serve = "mkdir /w; echo page > /w/index.html; exec httpd -f -p 80 -h /w"
    docker.ok("run", "-d", "--name=web", "--ipc=shareable", "--publish=8080:80", "--health-cmd=test -e /w/index.html", "--health-interval=200ms",
              "box", "sh", "-c", serve)  # fmt: skip
    fetch = ["busybox", "wget", "-qO-"]
    assert wait_until(lambda: docker.stage.run(*fetch, "http://127.0.0.1:8080/").stdout, "it serves") == "page\n"
    address = docker.of("web", "NetworkSettings.IPAddress")
    assert address.startswith("10.99.0.") and docker.stage.run(*fetch, f"http://{address}/").stdout == "page\n"
    assert docker.ok("run", "--rm", "box", "wget", "-qO-", f"http://{address}/") == "page\n"
    beside = docker.ok("run", "--rm", "--network=container:web", "--pid=container:web", "--ipc=container:web", "box",
                       "sh", "-c", "wget -qO- http://127.0.0.1/; ps")  # fmt: skip
    assert beside.startswith("page\n") and "httpd -f" in beside
    wait_until(lambda: docker.of("web", "State.Health.Status") == "healthy", "it is found to be well")
    docker.ok("run", "-d", "--name=again", "--network=none", "--restart=on-failure:2", "box", "false")
    wait_until(lambda: docker.of("again", "RestartCount") == 2, "it was begun again, twice")


def test_options(docker: Docker) -> None:
    for options, script, said in OPTIONS:
        options = options if any("workdir" in option for option in options) else [*options, "--workdir=/sys/fs/cgroup"]
        assert docker.run(*options, "box", "sh", "-c", script) == said, options


def test_terminals(docker: Docker) -> None:
    docker.ok("run", "-d", "--name=c1", "--network=none", "box", "sleep", "600")
    for words in (["run", "--rm", "-it", "--network=none", "box", "sh"], ["exec", "-it", "c1", "sh"]):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
        client = docker.stage.start("docker", *words, stdin=slave, stdout=slave, stderr=slave,
                                    env={"DOCKER_HOST": f"unix://{HOME}/socket", "HOME": HOME})  # fmt: skip
        os.close(slave)
        said = b""
        try:
            os.write(master, b"until test `stty size | tr -d ' '` = 3377; do :; done; echo size-; tty; exit 6\n")
            with contextlib.suppress(OSError):  # EIO: nobody has the other side any more
                while data := os.read(master, 1 << 12):
                    said += data
            assert client.wait(DEADLINE) == 6, said
        finally:
            os.close(master)
            end([client.pid])
            client.wait()
        assert b"size-\r\n/dev/pts/0\r\n" in said, said


@pytest.mark.skipif(shutil.which("ctr") is None, reason="ctr, which comes with containerd, is not installed")
def test_containerd_without_docker(docker: Docker, busybox: str, tmp_path: Path) -> None:
    """The daemon's containerd, asked by its own client, in a namespace of its own."""
    rootfs = shutil.copytree(busybox, tmp_path / "rootfs", symlinks=True)  # which gets a /run
    socket = f"{HOME}/exec/containerd/containerd.sock"
    options = ["--rm", f"--runc-binary={RUNTIME}", "--rootfs"]
    done = docker.stage.run("ctr", f"--address={socket}", "--namespace=test", "run", *options, str(rootfs), "c1",
                            "/bin/sh", "-c", "echo my number is $$; exit 7")  # fmt: skip
    assert (done.stdout, done.returncode) == ("my number is 1\n", 7), done.stderr


def test_a_killed_shim(docker: Docker) -> None:
    """The shim is what waits for process 1. When it is killed, containerd has the runtime kill and delete what is left."""
    docker.ok("run", "-d", "--name=c1", "--network=none", "box", "sleep", "600")
    [shim] = docker.stage.named("containerd-shim")
    os.kill(shim, signal.SIGKILL)
    wait_until(lambda: docker.of("c1", "State.Status") == "exited", "the daemon has noticed")
    docker.ok("start", "c1")
    assert docker.ok("exec", "c1", "echo", "again") == "again\n"
