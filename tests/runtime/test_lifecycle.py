"""The OCI runtime's operations, from its command line: what each does, refuses, and leaves behind.

https://github.com/opencontainers/runtime-spec/blob/v1.2.0/runtime.md
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer.linux.cgroups import hierarchies
from minicontainer.runtime.bundle import default_config
from minicontainer.runtime.containers import Containers
from minicontainer.runtime.errors import StartError
from tests.cli.tracing import needs_strace
from tests.command import needs_root

pytestmark = needs_root

RUNTIME = Path(sys.executable).with_name("minicontainer-runtime")
DEADLINE = 60


class Runtime:
    """One bundle, and one directory for state."""

    def __init__(self, directory: Path, image: str) -> None:
        self.root, self.bundle = directory / "state", directory / "bundle"
        self.bundle.mkdir()
        shutil.copytree(image, self.bundle / "rootfs", symlinks=True)
        self.config = default_config()
        self.config["process"]["terminal"] = False
        self.config["root"]["readonly"] = False

    def write(self, *args: str, **process: Any) -> None:
        self.config["process"] |= {"args": list(args)} if args else {}
        self.config["process"] |= process
        (self.bundle / "config.json").write_text(json.dumps(self.config))

    def __call__(self, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        options = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": DEADLINE, "text": True} | options
        return subprocess.run([RUNTIME, "--root", self.root, *map(str, words)], **options)

    def ok(self, *words: object, **options: Any) -> str:
        done = self(*words, **options)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def create(self, name: str = "c") -> None:
        """The container has our files for its output: with a pipe we would wait for its end."""
        with open(self.root.parent / f"{name}.out", "wb") as out, open(self.root.parent / f"{name}.err", "wb") as err:
            done = self("create", "--bundle", self.bundle, name, capture_output=False, stdout=out, stderr=err)
        assert done.returncode == 0, (self.root.parent / f"{name}.err").read_text()

    def output(self, name: str = "c") -> str:
        return (self.root.parent / f"{name}.out").read_text()

    def state(self, name: str = "c") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ok("state", name))
        return found

    def until(self, status: str, name: str = "c") -> dict[str, Any]:
        end = time.monotonic() + DEADLINE
        while (state := self.state(name))["status"] != status:
            assert time.monotonic() < end, state
            time.sleep(0.01)
        return state


@pytest.fixture
def runtime(tmp_path: Path, busybox: str) -> Iterator[Runtime]:
    runtime = Runtime(tmp_path, busybox)
    yield runtime
    for state in json.loads(runtime.ok("list", "--format", "json")) if runtime.root.exists() else ():
        runtime.ok("delete", "--force", state["id"])
    assert not runtime.root.exists() or not os.listdir(runtime.root)


def groups_named(name: str) -> list[str]:
    return [
        f"{tree.home()}/minicontainer/{name}"
        for tree in hierarchies()
        if os.path.isdir(f"{tree.home()}/minicontainer/{name}")
    ]


def test_from_create_to_delete(runtime: Runtime) -> None:
    runtime.write("sh", "-c", "echo started; sleep 600; true")
    runtime.create()
    created = runtime.state()
    assert created["status"] == "created" and created["bundle"] == str(runtime.bundle) and created["id"] == "c"
    assert created["ociVersion"] == "1.2.0" and created["rootfs"] == str(runtime.bundle / "rootfs")
    assert os.path.exists(f"/proc/{created['pid']}") and runtime.output() == "", "not before it is started"
    assert groups_named("c")

    runtime.ok("start", "c")
    assert runtime.until("running")["pid"] == created["pid"], "process 1 has become the program"
    assert Path(f"/proc/{created['pid']}/comm").read_text() == "sh\n"
    runtime.ok("kill", "c", "KILL")
    assert "pid" not in runtime.until("stopped") or runtime.state()["pid"] == 0
    assert runtime.output() == "started\n"
    runtime.ok("delete", "c")
    assert not os.listdir(runtime.root) and not groups_named("c")
    assert runtime("state", "c").returncode == 1


@pytest.mark.parametrize(
    ("when", "words", "said"),
    [
        ("created", ["delete"], "not stopped"),
        ("created", ["resume"], "not paused"),
        ("running", ["start"], "it is running"),
        ("running", ["delete"], "not stopped"),
        ("stopped", ["start"], "it is stopped"),
        ("stopped", ["kill"], "not running"),
        ("stopped", ["pause"], "is stopped"),
        ("stopped", ["exec", "true"], "not running"),
        ("paused", ["exec", "true"], "paused"),
        ("created", ["kill", "NOSUCH"], "unknown signal"),
    ],
)
def test_what_the_status_does_not_allow_is_refused_and_changes_nothing(
    runtime: Runtime, when: str, words: list[str], said: str
) -> None:
    runtime.write("sleep", "600")
    runtime.create()
    for word in {"created": [], "running": ["start"], "paused": ["start", "pause"], "stopped": ["start"]}[when]:
        runtime.ok(word, "c")
    if when == "stopped":
        runtime.ok("kill", "c", "9")
    before = runtime.until(when)
    done = runtime(words[0], "c", *words[1:])
    assert done.returncode == (255 if words[0] == "exec" else 1)
    assert said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert runtime.state() == before
    if when == "paused":
        runtime.ok("resume", "c")


def test_an_id_is_taken_once(runtime: Runtime) -> None:
    runtime.write("sleep", "600")
    runtime.create()
    pid = runtime.state()["pid"]
    done = runtime("create", "--bundle", runtime.bundle, "c")
    assert done.returncode == 1 and "already exists" in done.stderr
    assert runtime.state()["pid"] == pid and runtime.state()["status"] == "created"


def test_a_program_that_is_not_there_is_an_error_of_start(runtime: Runtime) -> None:
    runtime.write("/no/such")
    runtime.create()
    done = runtime("start", "c")
    assert done.returncode == 1 and "/no/such: not found" in done.stderr
    assert runtime.until("stopped")
    runtime.ok("delete", "c")


def test_when_start_has_failed_the_container_can_be_deleted_at_once(runtime: Runtime) -> None:
    """As containerd does, without --force. In this process: a command would take so long that process 1 is gone by then."""
    runtime.write("/no/such")
    containers = Containers(str(runtime.root))
    for _ in range(20):
        runtime.create()
        with pytest.raises(StartError, match="/no/such: not found"):
            containers.start("c")
        containers.delete("c")


def test_a_configuration_without_a_process_can_be_created_and_not_started(runtime: Runtime) -> None:
    runtime.config.pop("process")
    (runtime.bundle / "config.json").write_text(json.dumps(runtime.config))
    runtime.create()
    done = runtime("start", "c")
    assert done.returncode == 1 and "process" in done.stderr


def test_what_config_json_says_later_does_nothing_to_a_created_container(runtime: Runtime) -> None:
    runtime.write("echo", "first")
    runtime.create()
    runtime.write("echo", "second")
    runtime.ok("start", "c")
    runtime.until("stopped")
    assert runtime.output() == "first\n"


def test_run_ends_as_the_program_does_and_leaves_nothing(runtime: Runtime) -> None:
    runtime.write("sh", "-c", "echo out; echo err >&2; exit 7")
    done = runtime("run", "--bundle", runtime.bundle, "c")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    runtime.write("sh", "-c", "kill -TERM $$")
    # To its process 1, the kernel delivers only what it has a handler for; sh has none for TERM.
    runtime.write("sh", "-c", "trap 'exit 9' TERM; kill -TERM $$; sleep 600")
    assert runtime("run", "--bundle", runtime.bundle, "c").returncode == 9
    assert not os.listdir(runtime.root) and not groups_named("c")


def test_run_keeps_what_it_is_told_to_keep(runtime: Runtime) -> None:
    runtime.write("true")
    runtime.ok("run", "--keep", "--bundle", runtime.bundle, "c")
    assert runtime.state()["status"] == "stopped"


def test_exec_is_in_every_namespace_and_as_confined(runtime: Runtime) -> None:
    runtime.write("sleep", "600")
    runtime.config["linux"]["resources"] = {"pids": {"limit": 77}}
    runtime.write()
    runtime.create()
    runtime.ok("start", "c")
    one = runtime.until("running")["pid"]
    script = (
        "for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done; grep -E 'Cap|NoNew' /proc/self/status"
    )
    inside = runtime.ok("exec", "c", "sh", "-c", script).splitlines()
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
    assert inside[:6] == [os.readlink(f"/proc/{one}/ns/{kind}") for kind in kinds]
    status = Path(f"/proc/{one}/status").read_text().splitlines()
    assert inside[6:] == [line for line in status if line.startswith(("Cap", "NoNew"))]
    groups = runtime.ok("exec", "c", "cat", "/proc/self/cgroup").splitlines()
    assert all(line.endswith(":/") for line in groups if "systemd" not in line), "in the container's own group"
    assert runtime("exec", "c", "sh", "-c", "exit 42").returncode == 42
    assert runtime("exec", "c", "/no/such").returncode == 255, "1 could be the program's"
    assert runtime.ok(
        "exec", "--user", "7:8", "--env", "A=b", "--cwd", "/tmp", "c", "sh", "-c", "id -u; id -g; echo $A; pwd"
    ) == ("7\n8\nb\n/tmp\n")
    assert runtime.ok("exec", "c", "sh", "-c", "ls /proc/self/fd | wc -l") == "4\n", "0, 1, 2 and ls's own"


def test_exec_goes_into_several_groups_below_the_containers_own(runtime: Runtime) -> None:
    """Each --cgroup names some controllers; the last word on one counts, and for the others nothing changes."""
    runtime.write("sleep", "600")
    runtime.create()
    runtime.ok("start", "c")
    pid = runtime.until("running")["pid"]
    containers = Containers(str(runtime.root))
    places = containers.group(containers.known("c")).places
    made = {name: f"{places[name][1]}/{below}" for name, below in (("memory", "one"), ("pids", "two"))}
    for directory in dict.fromkeys(made.values()):
        os.mkdir(directory)
    wishes = ("--cgroup", "memory:nowhere/../one", "--cgroup", "pids:two")
    refused = runtime("exec", *wishes, "c", "true")
    assert refused.returncode == 255 and "is not a sub cgroup path" in refused.stderr
    inside = runtime.ok("exec", "--cgroup", "memory,pids:/", "--cgroup", "memory:one", "--cgroup", "pids:two", "c", "cat", "/proc/self/cgroup")  # fmt: skip
    version = places["memory"][0]
    if version == 1:
        of = {line.split(":")[1]: line.split(":")[2] for line in inside.splitlines()}
        assert (of["memory"], of["pids"], of["freezer"]) == ("/one", "/two", "/")
    else:
        assert "0::/two" in inside
    assert "unknown controller whaaat" in runtime("exec", "--cgroup", "whaaat:/", "c", "true").stderr
    missing = runtime("exec", "--cgroup", "memory:one", "--cgroup", "pids:three", "c", "true")
    assert missing.returncode == 255 and "/three/cgroup.procs: no such file or directory" in missing.stderr
    assert runtime.state()["pid"] == pid


@pytest.mark.parametrize("users", ["the host's", "its own"])
@pytest.mark.parametrize("option", ["--no-subreaper", "--no-pivot"])
def test_a_user_namespace_made_inside_mounts_no_proc_without_the_masks(runtime: Runtime, option: str, users: str) -> None:  # fmt: skip
    """The kernel lets it mount what it can see already: so no proc may be left under the new root, as --no-pivot has
    it, that is not masked (mount_too_revealing() in fs/namespace.c)."""
    if users == "its own":
        runtime.config["linux"]["namespaces"].append({"type": "user"})
        runtime.config["linux"] |= {
            f"{kind}Mappings": [{"containerID": 0, "hostID": 0, "size": 1000}] for kind in ("uid", "gid")
        }
    runtime.write("unshare", "-mrpf", "sh", "-c", "for kind in proc sysfs; do mount -t $kind x /mnt; done; ls /mnt")
    (runtime.bundle / "rootfs/mnt").mkdir(exist_ok=True)
    done = runtime("run", option, "--bundle", runtime.bundle, "c")
    assert done.stdout == "", done.stderr
    assert done.stderr.count("permission denied") == 2, done.stderr


def test_spec_has_a_cgroup_namespace_where_runcs_has_one(runtime: Runtime, tmp_path: Path) -> None:
    """On v2 alone. Who adds one on v1, as its users do, has two else, which is an error."""
    runtime.ok("spec", "--bundle", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    unified = all(tree.version == 2 for tree in hierarchies())
    assert ({"type": "cgroup"} in config["linux"]["namespaces"]) == unified
    runtime.config["linux"]["namespaces"] = config["linux"]["namespaces"]
    runtime.write("cut", "-d:", "-f3", "/proc/self/cgroup")
    seen = runtime.ok("run", "--bundle", runtime.bundle, "c")
    assert ("/minicontainer/c" in seen) != unified


def test_ps_pause_update_and_events(runtime: Runtime) -> None:
    runtime.write("sh", "-c", "sleep 600 & wait")
    runtime.create()
    runtime.ok("start", "c")
    one = runtime.until("running")["pid"]
    end = time.monotonic() + DEADLINE
    while len(pids := json.loads(runtime.ok("ps", "--format", "json", "c"))) != 2:
        assert time.monotonic() < end, pids
    assert one in pids and str(one) in runtime.ok("ps", "c")
    runtime.ok("pause", "c")
    assert runtime.state()["status"] == "paused"
    runtime.ok("resume", "c")
    runtime.ok("update", "c", "--pids-limit", "31", "--memory", "50M")
    (event,) = map(json.loads, runtime.ok("events", "--stats", "c").splitlines())
    assert event["type"] == "stats" and event["id"] == "c"
    assert event["data"]["pids"]["limit"] == 31 and event["data"]["pids"]["current"] >= 2
    assert event["data"]["memory"]["usage"]["limit"] == 50 << 20
    done = runtime("update", "c", "--memory", "1k", "--pids-limit", "5")
    assert done.returncode == 1
    assert json.loads(runtime.ok("events", "--stats", "c"))["data"]["pids"]["limit"] == 31, "all or nothing"


HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def test_hooks_run_at_their_moments_with_the_state_on_stdin(runtime: Runtime, tmp_path: Path) -> None:
    (runtime.bundle / "rootfs/log").mkdir(mode=0o777)
    log = runtime.bundle / "rootfs/log"
    hook = 's=$(cat); readlink /proc/self/ns/mnt > {to}/{name}.ns; echo "$s" > {to}/{name}'
    runtime.config["hooks"] = {
        name: [
            {
                "path": "/bin/sh",
                "args": ["sh", "-c", hook.format(to="/log" if name == "startContainer" else log, name=name)],
                "env": ["PATH=/bin:/usr/bin"],
            }
        ]
        for name in HOOKS
    }
    runtime.config["annotations"] = {"org.example": "yes"}
    runtime.write("sleep", "600")
    runtime.create()
    assert sorted(path.name for path in log.iterdir() if path.suffix == "") == sorted(HOOKS[:3])
    runtime.ok("start", "c")
    pid = runtime.until("running")["pid"]
    assert (log / "poststart").exists() and (log / "startContainer").exists()
    runtime.ok("kill", "c", "KILL")
    runtime.until("stopped")
    runtime.ok("delete", "c")
    states = {name: json.loads((log / name).read_text()) for name in HOOKS}
    assert all(state["id"] == "c" and state["bundle"] == str(runtime.bundle) for state in states.values())
    assert all(state["annotations"] == {"org.example": "yes"} for state in states.values())
    assert [states[name]["status"] for name in HOOKS] == [
        "created", "creating", "creating", "created", "running", "stopped",
    ]  # fmt: skip
    assert states["prestart"]["pid"] == states["createRuntime"]["pid"] == states["poststart"]["pid"] == pid
    ours = os.readlink("/proc/self/ns/mnt")
    where = {name: (log / f"{name}.ns").read_text().strip() for name in HOOKS}
    assert where["prestart"] == where["createRuntime"] == where["poststart"] == where["poststop"] == ours
    assert where["createContainer"] == where["startContainer"] != ours


@pytest.mark.parametrize("name", HOOKS[:3])
@pytest.mark.parametrize(("hook", "said"), [("exit 3", "exit code 3"), ("sleep 600", "timeout")])
def test_a_hook_that_fails_ends_the_creation(runtime: Runtime, name: str, hook: str, said: str) -> None:
    runtime.config["hooks"] = {
        name: [{"path": "/bin/sh", "args": ["sh", "-c", hook], "env": ["PATH=/bin"], "timeout": 1}]
    }
    runtime.write("true")
    done = runtime("create", "--bundle", runtime.bundle, "c")
    assert done.returncode == 1 and said in done.stderr and name in done.stderr
    assert not os.listdir(runtime.root) and not groups_named("c")


@pytest.mark.parametrize("name", HOOKS[4:])
def test_a_later_hook_that_fails_is_a_warning(runtime: Runtime, name: str) -> None:
    runtime.config["hooks"] = {name: [{"path": "/bin/false"}]}
    runtime.write("true")
    done = runtime("run", "--bundle", runtime.bundle, "c")
    assert done.returncode == 0 and f"warning: error running hook: {name} hook failed" in done.stderr


def test_the_terminal_is_handed_to_the_socket(runtime: Runtime, tmp_path: Path) -> None:
    script = "tty; test -t 0 -a -t 1 -a -t 2 && grep -c ' /dev/console .* devpts ' /proc/self/mountinfo; echo yes"
    runtime.write("sh", "-c", script, terminal=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(1)
        runtime.ok(
            "create", "--bundle", runtime.bundle, "--console-socket", tmp_path / "s", "c",
            capture_output=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        with listener.accept()[0] as line:
            _, fds, _, _ = socket.recv_fds(line, 100, 1)
    runtime.ok("start", "c")
    with open(fds[0], "rb", buffering=0) as master:
        read = b""
        while b"yes" not in read:
            read += master.read(100)
    assert read.split() == [b"/dev/pts/0", b"1", b"yes"]
    runtime.until("stopped")


def test_the_agent_gets_the_listener_of_each_program(runtime: Runtime, tmp_path: Path) -> None:
    """SCMP_ACT_NOTIFY, for process 1 and for what joins it. An agent that goes away leaves the call without an answer."""
    runtime.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": str(tmp_path / "s"), "listenerMetadata": "more",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    }  # fmt: skip
    runtime.write("sh", "-c", "mkdir /tmp/x; sleep 600")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.bind(str(tmp_path / "s"))
        agent.listen(2)
        agent.settimeout(DEADLINE)

        def taken() -> dict[str, Any]:
            with agent.accept()[0] as line:
                text, fds, _, _ = socket.recv_fds(line, 1 << 16, 2)
                (listener,) = fds
                assert os.readlink(f"/proc/self/fd/{listener}") == "anon_inode:seccomp notify"
                os.close(listener)
                message: dict[str, Any] = json.loads(text)
            assert (message["fds"], message["metadata"]) == (["seccompFd"], "more")
            state = runtime.state()
            assert (message["state"]["id"], message["state"]["pid"]) == ("c", state["pid"])
            return message

        runtime.create()
        first = taken()
        assert first["state"]["status"] == "creating" and first["pid"] == first["state"]["pid"]
        runtime.ok("start", "c")
        runtime.until("running")
        line = [RUNTIME, "--root", runtime.root, "exec", "c", "sh", "-c", "mkdir /tmp/x; echo mkdir: $?"]
        with subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as joins:  # fmt: skip
            second = taken()
            assert second["state"]["status"] == "running" and second["pid"] != second["state"]["pid"]
            out, err = joins.communicate(timeout=DEADLINE)
    assert (joins.returncode, out) == (0, "mkdir: 1\n") and "Function not implemented" in err


def test_a_terminal_that_nobody_would_have_is_refused(runtime: Runtime) -> None:
    runtime.write("true", terminal=True)
    done = runtime("create", "--bundle", runtime.bundle, "c")
    assert done.returncode == 1 and "--console-socket" in done.stderr


@needs_strace
@pytest.mark.parametrize("by", ["delete", "repair"])
def test_a_kill_of_the_runtime_at_any_moment_is_cleaned_up(runtime: Runtime, by: str, tmp_path: Path) -> None:
    """The moments are system calls of `create`, counted by strace(1), which kills it there."""
    runtime.write("sleep", "600")
    halves = 0
    repair = [RUNTIME.with_name("minicontainer"), "--root", tmp_path / "engine", "system", "repair"]
    calls = {"mkdir": (1, 6), "rename": (1, 3), "mkfifo": (1,), "clone3": (1,), "openat": (150, 200, 230)}
    for call, numbers in calls.items():
        name = {"mkfifo": "mknodat,mknod"}.get(call, call)
        for number in numbers:
            subprocess.run(
                ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}",
                 RUNTIME, "--root", runtime.root, "create", "--bundle", runtime.bundle, "c"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=DEADLINE,
            )  # fmt: skip
            if by == "repair":
                half = runtime.root.exists() and os.listdir(runtime.root) and not is_whole(runtime)
                done = subprocess.run([*repair, "--runtime-root", runtime.root], capture_output=True, text=True)
                assert (done.returncode, done.stderr) == (0, ""), (call, number)
                assert done.stdout == (f"container c of {runtime.root}, half created\n" if half else "")
                halves += bool(half)
            if by == "delete" or (runtime.root.exists() and os.listdir(runtime.root)):
                runtime.ok("delete", "--force", "c")  # what is whole is its maker's to remove
            assert not runtime.root.exists() or not os.listdir(runtime.root)
            assert not groups_named("c"), (call, number)
    assert by == "delete" or halves > 3


def is_whole(runtime: Runtime) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return bool(json.loads((runtime.root / "c/state.json").read_text())["ready"])
    return False


def test_repair_leaves_whole_containers_and_those_that_are_just_being_made(runtime: Runtime, tmp_path: Path) -> None:
    from minicontainer.runtime.containers import Containers

    runtime.write("true")
    runtime.create()
    (runtime.root / "made").mkdir()
    held = os.open(runtime.root / "made", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert Containers(str(runtime.root)).repair() == [] and runtime.state()["status"] == "created"
    os.close(held)
    assert Containers(str(runtime.root)).repair() == [f"container made of {runtime.root}, half created"]
    runtime.ok("start", "c")
    runtime.until("stopped")
    assert Containers(str(runtime.root)).repair() == [] and runtime.state()["status"] == "stopped"
    assert Containers(str(tmp_path / "nowhere")).repair() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda config: config["process"].update(args="sh"), 'process.args: "sh" is no array'),
        (lambda config: config.update(ociVersion="2.0"), "ociVersion"),
        (lambda config: config["root"].update(path="nowhere"), "root.path"),
        (lambda config: config["linux"].update(resources={"memory": {"limit": "10 bananas"}}), '"10 bananas"'),
        (lambda config: config["linux"].update(seccomp={"defaultAction": "SCMP_ACT_DANCE"}), "SCMP_ACT_DANCE"),
        (lambda config: config["mounts"].append({"destination": "/x", "type": "nosuchfs", "source": "x"}), "nosuchfs"),
        (lambda config: config["mounts"].append({"destination": "/x", "type": "bind", "source": "/no", "options": ["bind"]}), "/no"),
        (lambda config: config["linux"]["namespaces"].append({"type": "network", "path": "/no"}), "network namespace"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_bundle_is_one_line_and_nothing_is_made(
    runtime: Runtime, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    change(runtime.config)
    runtime.write()
    done = runtime("create", "--bundle", runtime.bundle, "c")
    assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not runtime.root.exists() or not os.listdir(runtime.root)
    assert not groups_named("c")


def test_the_log_is_json_for_who_wants_it(runtime: Runtime, tmp_path: Path) -> None:
    runtime.write("true")
    done = subprocess.run(
        [RUNTIME, "--root", runtime.root, "--log", tmp_path / "log", "--log-format", "json", "state", "nobody"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    (entry,) = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert entry["level"] == "error" and "nobody does not exist" in entry["msg"] and entry["time"].endswith("Z")


def test_the_log_is_key_and_value_else(runtime: Runtime, tmp_path: Path) -> None:
    runtime.write("true")
    done = runtime("--log", tmp_path / "log", "state", 'no"body')
    assert done.returncode == 1
    (entry,) = (tmp_path / "log").read_text().splitlines()
    fields = dict(word.split("=", 1) for word in shlex.split(entry))
    assert set(fields) == {"time", "level", "msg"} and fields["level"] == "error"
    assert f"minicontainer-runtime: {fields['msg']}\n" == done.stderr and '"' in fields["msg"]


@pytest.mark.parametrize("style", ["text", "json"])
def test_debug_says_what_is_done_in_the_log_or_on_standard_error(runtime: Runtime, tmp_path: Path, style: str) -> None:
    runtime.write("sh", "-c", "echo out; exit 3")
    mark = '"level":"debug"' if style == "json" else "level=debug"
    quiet = runtime("--log-format", style, "run", "--bundle", runtime.bundle, "c")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (3, "out\n", "")
    done = runtime("--debug", "--log-format", style, "run", "--bundle", runtime.bundle, "c")
    assert (done.returncode, done.stdout) == (3, "out\n") and done.stderr.count(mark) == 6, done.stderr
    log = tmp_path / "log"
    logged = runtime("--debug", "--log", log, "--log-format", style, "run", "--bundle", runtime.bundle, "c")
    assert (logged.returncode, logged.stdout, logged.stderr) == (3, "out\n", "")
    said = ": run c, state in", "nsexec container setup", "child process in init()"
    said += "init: closing the pipe to signal completion", "process 1 of c is ", "exit code 3"
    for line, words in zip(log.read_text().splitlines(), said, strict=True):
        assert mark in line and words in line


def test_debug_names_the_stages_of_exec_as_runc_does(runtime: Runtime) -> None:
    runtime.write("sleep", "60")
    runtime.create()
    runtime.ok("start", "c")
    done = runtime("--debug", "exec", "c", "true")
    said = (
        "exec c true",
        "nsexec container setup",
        "child process in init()",
        "setns_init: about to exec",
        "has joined c",
    )
    assert done.returncode == 0
    for line, words in zip(done.stderr.splitlines(), (*said, "exit code 0"), strict=True):
        assert "level=debug" in line and words in line
    failed = runtime("--debug", "exec", "c", "nowhere")
    assert "nsexec" not in failed.stderr and "about to exec" not in failed.stderr


def test_rules_for_landlock_in_an_annotation(runtime: Runtime) -> None:
    runtime.config["annotations"] = {"org.minicontainer.landlock": '{"/bin": "read execute", "/tmp": "read write"}'}
    runtime.write("sh", "-c", "mkdir /tmp/a; ls /; mkdir /root/b", noNewPrivileges=True)
    (runtime.bundle / "rootfs/tmp").mkdir(exist_ok=True)
    done = runtime("run", "--bundle", runtime.bundle, "c")
    assert done.stdout == "" and done.stderr.count("Permission denied") == 2, done.stderr
    assert (runtime.bundle / "rootfs/tmp/a").is_dir() and not (runtime.bundle / "rootfs/root/b").exists()


def test_help_on_no_command(runtime: Runtime) -> None:
    done = runtime("foo", "-h")
    assert done.returncode == 1 and "No help topic for 'foo'" in done.stderr and done.stderr.count("\n") == 1


def test_a_signal_to_run_reaches_the_program(runtime: Runtime) -> None:
    runtime.write("sh", "-c", "trap 'echo heard; exit 4' TERM; echo up; while :; do sleep 0.05; done")
    with subprocess.Popen(
        [RUNTIME, "--root", runtime.root, "run", "--bundle", runtime.bundle, "c"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        assert run.stdout and run.stdout.readline() == "up\n"
        run.send_signal(signal.SIGTERM)
        assert run.stdout.read() == "heard\n"
        assert run.wait(DEADLINE) == 4


def test_features_and_version() -> None:
    features = json.loads(subprocess.run([RUNTIME, "features"], capture_output=True, check=True).stdout)
    assert features["ociVersionMax"] == "1.2.0" and "SCMP_ACT_NOTIFY" in features["linux"]["seccomp"]["actions"]
    version = subprocess.run([RUNTIME, "--version"], capture_output=True, check=True, text=True).stdout
    assert version.startswith("minicontainer-runtime version ") and "spec: 1.2.0" in version


@pytest.mark.parametrize("joined", [False, True], ids=["new", "joined"])
def test_a_network_device_is_moved_into_the_container(runtime: Runtime, joined: bool) -> None:
    """config-linux.md, "netDevices", of 1.3: under its new name, with its addresses, switched on."""
    runtime.config["linux"]["netDevices"] = {"out0": {"name": "in0"}}
    if joined:
        spaces = [one for one in runtime.config["linux"]["namespaces"] if one["type"] != "network"]
        runtime.config["linux"]["namespaces"] = [*spaces, {"type": "network", "path": str(runtime.root.parent / "net")}]
    runtime.write("sh", "-c", "ip -o addr show dev in0; cat /sys/class/net/in0/flags")
    done = _with_devices(runtime, f"{RUNTIME} --root {runtime.root} run -b {runtime.bundle} c; ip -br link show")
    assert done.returncode == 0, done.stderr
    inside, host = done.stdout.split("lo ", 1)
    assert "10.77.0.1/24" in inside and int(inside.split()[-1], 16) & 1  # IFF_UP
    assert "out0" not in host and "in0" not in host


def test_a_network_device_that_is_not_there_is_told(runtime: Runtime) -> None:
    runtime.config["linux"]["netDevices"] = {"nosuch0": {}}
    runtime.write("true")
    done = _with_devices(runtime, f"{RUNTIME} --root {runtime.root} run -b {runtime.bundle} c")
    assert done.returncode == 1
    assert 'no network device is called "nosuch0" here' in done.stderr and done.stderr.count("\n") == 1
    assert runtime.ok("list", "-q") == ""


def _with_devices(runtime: Runtime, script: str) -> subprocess.CompletedProcess[str]:
    """Run it in a network namespace, and a mount namespace, of its own, with a pair of devices; another is at net."""
    place = shlex.quote(str(runtime.root.parent / "net"))
    script = f"""
        touch {place} && unshare --net={place} true
        ip link set lo up && ip link add out0 type veth peer name other0 && ip address add 10.77.0.1/24 dev out0
        {script}
    """
    return subprocess.run(
        ["unshare", "-n", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
