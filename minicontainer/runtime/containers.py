"""The life of an OCI container: create, start, kill, delete, and what is written down of it in between.

https://github.com/opencontainers/runtime-spec/blob/v1.2.0/runtime.md

Each container has a directory, named after its id, which is made before anything else of it is. In there:

    state.json   what is known of it. Its status is not: that is what the kernel says of its process 1.
    config.json  as it was read when it was created; changes to the bundle's own do nothing to it any more.
    exec.fifo    the gate: process 1 waits there, about to become the program, until somebody opens the other end.
    notify/      a socket for the program to say that it is ready, where a service manager wants to be told.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
from collections.abc import Iterator, Mapping, Sequence

from minicontainer.linux import Namespace, birth_of, signal
from minicontainer.linux.files import put_in_place
from minicontainer.record import Record
from minicontainer.runtime.bundle import check_id, load, specification
from minicontainer.runtime.errors import Refusal, StartError
from minicontainer.runtime.failure import explain
from minicontainer.runtime.spec import OCI_VERSION, Hook, Hooks, Spec
from minicontainer.steps import Steps
from minicontainer.steps.group import Group, find_group, remove_group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket
    from typing import Any

    from minicontainer.runtime.birth import Running
    from minicontainer.runtime.program import Stdio
    from minicontainer.steps.user import IdMap

GATE = "exec.fifo"
PATIENCE = 10
"""Seconds in which what was killed has to be gone."""


_NOTHING: Mapping[str, Any] = {}


class Known(Record):
    """What state.json says."""

    id: str
    bundle: str
    pid: int = 0
    """Of process 1, in the PID namespace of whoever created it; 0 until there is one."""
    born: int = 0
    """When that process was, in clock ticks since boot: another one may have its number by now."""
    ready: bool = False
    """Whether it has been created: until then its process 1 is being built."""
    created: str = ""
    """RFC 3339, UTC."""
    rootfs: str = ""
    group: str = ""
    places: Mapping[str, Sequence[Any]] = _NOTHING
    """Controller → [version, directory], as `Group.places`."""
    annotations: Mapping[str, str] = _NOTHING
    owner: int = 0
    """Uid of whoever created it."""


class Containers:
    """All containers below one directory, `root`; made of the steps that are given."""

    def __init__(self, root: str, steps: Steps | None = None) -> None:
        self.root = os.path.abspath(root)
        self.steps = steps or Steps()
        self.warnings: list[str] = []
        """What went wrong, and was not to stop anything: to be logged."""
        self._listeners: dict[str, socket] = {}

    # The operations of the specification

    def create(self, container_id: str, bundle: str, stdio: Stdio = (0, 1, 2), **options: Any) -> None:
        """Make a container of the bundle, and leave it waiting at its gate.

        options: `config` (a path, in place of the bundle's config.json), `console_socket` and `pid_file` (paths),
        `notify` (whether the program is to find a socket for sd_notify(3)), and `changes` to the specification (a
        function from Spec to Spec). Raises BundleError, Refusal, StartError; nothing is left then.
        """
        running = self._begin(container_id, bundle, stdio, gate=True, **options)
        os.close(running.pidfd)
        if running.console is not None:
            os.close(running.console)

    def run(
        self, container_id: str, bundle: str, stdio: Stdio = (0, 1, 2), interrupts: int | None = None, **options: Any
    ) -> Running:
        """Create and start in one; returns as soon as the program runs. Whoever has it must wait for it."""
        gate = bool(options.get("notify"))  # whoever listens to it has to do so before it begins
        running = self._begin(container_id, bundle, stdio, gate=gate, interrupts=interrupts, **options)
        try:
            if gate:
                self.start(container_id)
            else:
                self._started(container_id)
        except BaseException:
            os.kill(running.pid, signal.SIGKILL)
            running.wait()
            self.delete(container_id, force=True)
            raise
        return running

    def start(self, container_id: str) -> None:
        """Open a created container's gate; returns when its program has replaced process 1.

        Raises Refusal (it is not waiting), StartError: the program could not be executed. The container is stopped
        then.
        """
        known = self.known(container_id)
        gate = f"{self._directory(container_id)}/{GATE}"
        with self._locked(container_id):
            status = self.status(known)
            if status != "created":
                raise Refusal(f"cannot start container {container_id}: it is {status}, not created")
            self._listen(known)
            pidfd = _pidfd(known)
            line = os.open(gate, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.unlink(gate)
                _hear(line, pidfd, container_id)
            finally:
                os.close(line)
                os.close(pidfd)
        self._started(container_id)

    def state(self, container_id: str) -> dict[str, Any]:
        """The state as the specification has it, with `created`, `rootfs` and `owner` as runc adds them."""
        known = self.known(container_id)
        return self._state(known, self.status(known))

    def kill(self, container_id: str, number: int, *, everybody: bool = False) -> None:
        """Send a signal to process 1, or to all of the container's processes. Raises Refusal: it is stopped."""
        known = self.known(container_id)
        status = self.status(known)
        if everybody:
            for pid in self.pids(container_id):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            return
        if status not in ("created", "running", "paused"):
            raise Refusal(f"cannot kill container {container_id}: container not running (it is {status})")
        pidfd = _pidfd(known)
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            raise Refusal(f"cannot kill container {container_id}: container not running (it is stopped)") from None
        finally:
            os.close(pidfd)
        if number == signal.SIGKILL and status == "paused":
            self.steps.thaw(self.group(known))  # on v1, what is frozen does not even die

    def delete(self, container_id: str, *, force: bool = False) -> None:
        """Remove what is left of a stopped container; `force` kills it first. Raises Refusal: it is not stopped."""
        try:
            known = self.known(container_id)
        except Refusal:
            if force:
                self._sweep(container_id)
                return
            raise
        with self._locked(container_id):
            status = self.status(known)
            if status != "stopped":
                if not force:
                    raise Refusal(f"cannot delete container {container_id} that is not stopped: it is {status}")
                self._end(known)
            # Without a PID namespace of its own, others may outlive process 1; and a kill -9 of ours leaves groups.
            remove_group(self.group(known) if known.places else find_group(known.group))
            state, hooks = self._state(known.replace(pid=0), "stopped"), tuple[Hook, ...]()
            with contextlib.suppress(Exception):  # half-made: there is no configuration yet
                hooks = tuple(self._hooks(known).poststop)
            _remove(self._directory(container_id))
        for hook in hooks:
            self._run_late("poststop", hook, state)

    # What runtimes have beyond it

    def pass_on_readiness(self, container_id: str, manager: str) -> None:
        """Having started a container: wait until it says that it is ready, and tell the `manager`; or until it ends.

        A manager that nobody reaches is a warning: the container runs.
        """
        listener = self._listeners.pop(container_id, None)
        if listener is None:  # it was created without a socket
            return
        from minicontainer.runtime.notify import pass_on

        known = self.known(container_id)
        with listener, contextlib.suppress(Refusal):  # it has ended
            pidfd = _pidfd(known)
            try:
                pass_on(listener, manager, known.pid, pidfd)
            except OSError as error:
                self.warnings.append(f"NOTIFY_SOCKET {manager} is not told that it is ready: {error.strerror}")
            finally:
                os.close(pidfd)

    def all(self) -> list[dict[str, Any]]:
        """The state of every container."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for container_id in sorted(os.listdir(self.root)):
                with contextlib.suppress(Refusal):
                    found.append(self.state(container_id))
        return found

    def repair(self) -> list[str]:
        """Remove what was being created by somebody who was killed; returns a line for each such container.

        Whole ones stay, stopped or not: whoever created them deletes them.
        """
        done = []
        with contextlib.suppress(FileNotFoundError):
            for container_id in sorted(os.listdir(self.root)):
                if self._is_being_made(container_id):
                    continue
                with contextlib.suppress(Refusal):
                    if self.known(container_id).ready:
                        continue
                self.delete(container_id, force=True)
                done.append(f"container {container_id} of {self.root}, half created")
        return done

    def pids(self, container_id: str) -> list[int]:
        """Every process of the container, as the caller's PID namespace has them."""
        known, found = self.known(container_id), set[int]()
        group = self.group(known)
        directories = [group.places[name][1] for name in ("pids", "memory", "devices") if name in group]
        for top in [*directories, *([group.unified] if group.unified else [])][:1]:
            for directory, _, files in os.walk(top):
                if "cgroup.procs" in files:
                    with contextlib.suppress(OSError), open(f"{directory}/cgroup.procs") as procs:
                        found |= set(map(int, procs.read().split()))
        return sorted(found)

    def pause(self, container_id: str) -> None:
        """Stop every process where it is. Raises Refusal."""
        self.steps.freeze(self._group_of(container_id, "running", "created"))

    def resume(self, container_id: str) -> None:
        """Let a paused container go on. Raises Refusal."""
        self.steps.thaw(self._group_of(container_id, "paused"))

    def known(self, container_id: str) -> Known:
        """What is written of a container. Raises Refusal: there is none."""
        check_id(container_id)
        try:
            with open(f"{self._directory(container_id)}/state.json", encoding="utf-8") as file:
                return Known(**json.load(file))
        except FileNotFoundError:
            raise Refusal(f"container {container_id} does not exist (in {self.root})") from None
        except (ValueError, TypeError) as error:
            raise Refusal(f"{self._directory(container_id)}/state.json cannot be read: {error}") from None

    def status(self, known: Known) -> str:
        """creating, created, running, paused or stopped: what the kernel says."""
        if not known.pid:
            return "creating" if _is_locked(self._directory(known.id)) else "stopped"
        if not is_alive(known.pid, known.born):
            return "stopped"
        if not known.ready:
            return "creating"
        if os.path.exists(f"{self._directory(known.id)}/{GATE}"):
            return "created"
        group = self.group(known)
        with contextlib.suppress(OSError):
            if "freezer" in group and self.steps.is_frozen(group):
                return "paused"
        return "running"

    def group(self, known: Known) -> Group:
        """The container's control group; without any places, where it has none."""
        return Group(known.group, {name: (place[0], place[1]) for name, place in known.places.items()})

    def configuration(self, known: Known) -> Spec:
        """What the container was created from."""
        return self._spec(known)

    def document(self, known: Known) -> dict[str, Any]:
        """Its config.json, as it was when the container was created, with what was updated since."""
        return load(self._directory(known.id))

    def remember(self, known: Known, document: dict[str, Any]) -> None:
        """Change that."""
        _write(f"{self._directory(known.id)}/config.json", json.dumps(document))

    # How it is done

    def _begin(
        self,
        container_id: str,
        bundle: str,
        stdio: Stdio,
        *,
        gate: bool,
        config: str | None = None,
        console_socket: str | None = None,
        pid_file: str | None = None,
        notify: bool = False,
        changes: Any = None,
        interrupts: int | None = None,
    ) -> Running:
        from minicontainer.runtime import birth  # only now: engines run us three times for one container

        check_id(container_id)
        bundle = os.path.abspath(bundle)
        raw = load(bundle, config)
        spec = specification(raw, bundle, container_id).replace(
            reaper=False, die_with_parent=False, default_filesystems=False
        )
        spec = spec.replace(group=_group_name(spec))
        if Namespace.USER in spec.namespaces and not spec.uid_mappings:
            spec = spec.replace(uid_mappings=own_ids("uid"), gid_mappings=own_ids("gid"))
        self.warnings += spec.warnings
        if changes:
            spec = changes(spec)
        directory = self._directory(container_id)
        if spec.cgroups_path:
            self._look_at_group(spec)
        with self._claimed(container_id):
            known = Known(
                container_id,
                bundle,
                created=_now(),
                rootfs=getattr(spec.root, "path", ""),
                group=spec.group or container_id,
                annotations=dict(spec.annotations),
                owner=os.geteuid(),
            )
            self._write(known)  # before there is any of it
            _write(f"{directory}/config.json", json.dumps(raw))
            if notify:
                from minicontainer.runtime.notify import with_socket

                spec = with_socket(spec, f"{directory}/notify")
            if gate:
                os.mkfifo(f"{directory}/{GATE}")
                os.chmod(f"{directory}/{GATE}", 0o622)  # process 1 is somebody else by the time at which it opens it

            def born(pid: int, group: Group | None) -> None:
                nonlocal known
                places = {name: list(place) for name, place in group.places.items()} if group else {}
                known = known.replace(pid=pid, born=birth_of(pid) or -1, places=places)
                self._write(known)

            def connect(pid: int, steps: Steps) -> None:
                for outside, inside in spec.net_devices:
                    steps.hand_over_device(pid, outside, inside)

            running = birth.start(
                spec, self.steps, stdio, interrupts, gate=f"{directory}/{GATE}" if gate else None, born=born,
                connect=connect if spec.net_devices else None,
            )  # fmt: skip
            try:
                if running.console is not None and console_socket:
                    send_master(console_socket, running.console)
                if pid_file:
                    _write(pid_file, str(running.pid))
                self._write(known.replace(ready=True))
            except BaseException:
                os.kill(running.pid, signal.SIGKILL)
                running.wait()
                raise
        return running

    def _listen(self, known: Known) -> None:
        place = f"{self._directory(known.id)}/notify"
        if os.path.isdir(place):
            from minicontainer.runtime.notify import listen

            self._listeners[known.id] = listen(place)

    @contextlib.contextmanager
    def _claimed(self, container_id: str) -> Iterator[None]:
        """The container's directory, ours alone as long as it is being made; gone again when that fails."""
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        directory = self._directory(container_id)
        try:
            os.mkdir(directory, 0o711)
        except FileExistsError:
            raise Refusal(f"container with id {container_id} already exists; delete it first") from None
        with self._locked(container_id):
            try:
                yield
            except BaseException:
                known = self.known(container_id)
                remove_group(self.group(known) if known.places else find_group(known.group))
                _remove(directory)
                raise

    @contextlib.contextmanager
    def _locked(self, container_id: str) -> Iterator[None]:
        fd = os.open(self._directory(container_id), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # process 1 is a copy of us, and has it open as well
            os.close(fd)

    def _started(self, container_id: str) -> None:
        """The program runs: the last hooks."""
        known = self.known(container_id)
        for hook in self._hooks(known).poststart:
            self._run_late("poststart", hook, self._state(known, "running"))

    def _look_at_group(self, spec: Spec) -> None:
        """A group that a configuration names may be somebody's already. Raises Refusal: nothing could start in it."""
        group = find_group(spec.group or spec.id)
        if "freezer" in group and self.steps.is_frozen(group):
            raise Refusal(f"container's cgroup unexpectedly frozen: {group['freezer'][1]}; thaw it first")
        pids = set[str]()
        for directory in group.directories:
            with contextlib.suppress(OSError), open(f"{directory}/cgroup.procs", encoding="ascii") as procs:
                pids |= set(procs.read().split())
        if pids:
            self.warnings.append(
                f"container's cgroup is not empty: {len(pids)} process(es) found in {spec.cgroups_path}"
            )

    def _run_late(self, moment: str, hook: Hook, state: dict[str, Any]) -> None:
        """The specification: when it fails, log a warning, and go on as if it had succeeded."""
        from minicontainer.runtime.hooks import run_hooks

        try:
            run_hooks(moment, [hook], state)
        except StartError as error:
            self.warnings.append(str(error))

    def _end(self, known: Known) -> None:
        """Kill process 1, and wait until it is gone."""
        if not is_alive(known.pid, known.born):
            return
        pidfd = _pidfd(known)
        try:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            group = self.group(known)
            with contextlib.suppress(OSError):
                if "freezer" in group and self.steps.is_frozen(group):
                    self.steps.thaw(group)
            if not select.select([pidfd], [], [], PATIENCE)[0]:
                raise Refusal(f"process {known.pid} of container {known.id} was killed, and is not gone")
        finally:
            os.close(pidfd)

    def _sweep(self, container_id: str) -> None:
        """Remove the directory of a container whose maker was killed before it had written anything in there."""
        directory = self._directory(container_id)
        if os.path.isdir(directory) and not _is_locked(directory):
            remove_group(find_group(container_id))
            _remove(directory)

    def _is_being_made(self, container_id: str) -> bool:
        """Whether somebody is at work on it, and not just what a dead one had begun: its process 1, a copy of it, has
        the lock as well, and lets go of it as soon as it has noticed."""
        import time

        end = time.monotonic() + 2
        while _is_locked(self._directory(container_id)):
            if time.monotonic() > end:
                return True
            time.sleep(0.01)  # there is no event for it: flock(2) can wait, but not for so long and no longer
        return False

    def _group_of(self, container_id: str, *statuses: str) -> Group:
        known = self.known(container_id)
        status = self.status(known)
        if status not in statuses:
            raise Refusal(f"container {container_id} is {status}, not {' or '.join(statuses)}")
        return self.group(known)

    def _hooks(self, known: Known) -> Hooks:
        """Most have none: then there is no need to understand the rest of the configuration."""
        return self._spec(known).hooks if self.document(known).get("hooks") else Hooks()

    def _spec(self, known: Known) -> Spec:
        return specification(self.document(known), known.bundle, known.id, exists=False)

    def _state(self, known: Known, status: str) -> dict[str, Any]:
        state: dict[str, Any] = {
            "ociVersion": OCI_VERSION,
            "id": known.id,
            **({"pid": known.pid} if status != "stopped" else {}),
            "status": status,
            "bundle": known.bundle,
            "rootfs": known.rootfs,
            "created": known.created,
            "owner": str(known.owner),
        }
        if known.annotations:
            state["annotations"] = known.annotations
        return state

    def _directory(self, container_id: str) -> str:
        return f"{self.root}/{container_id}"

    def _write(self, known: Known) -> None:
        """Whole or not at all: a reader sees the old or the new."""
        file = f"{self._directory(known.id)}/state.json"
        _write(file, json.dumps(known.asdict()))


def default_root() -> str:
    """Where an OCI runtime keeps its containers unless --root says otherwise: gone with the machine's next start."""
    if os.geteuid() == 0:
        return "/run/minicontainer-runtime"
    directory = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/minicontainer-runtime-{os.geteuid()}"
    return f"{directory}/minicontainer-runtime"


def _group_name(spec: Spec) -> str:
    """Its control group: cgroupsPath, or one of ours. ``slice:prefix:name``, as it is for who leaves groups to systemd,
    is taken for the directory that systemd would have made."""
    path = spec.cgroups_path or spec.id
    if path.count(":") == 2:
        above, prefix, name = path.split(":")
        return f"/{above or 'system.slice'}/{prefix}-{name}.scope"
    return path


def own_ids(kind: str) -> list[IdMap]:
    """A map, where a configuration has none, in which everybody inside is who they are outside; without the right to
    map others, root alone, who is the caller."""
    if os.geteuid() != 0:
        return [(0, os.geteuid() if kind == "uid" else os.getegid(), 1)]
    with open(f"/proc/self/{kind}_map", encoding="ascii") as lines:
        ranges = [tuple(map(int, line.split())) for line in lines]
    return [(first, first, count) for first, _, count in ranges]


def is_alive(pid: int, born: int) -> bool:
    """Whether the process that was born then is still there, and no zombie."""
    return pid > 0 and birth_of(pid) == born


def _pidfd(known: Known) -> int:
    """A handle on process 1 itself. Raises Refusal: it has ended."""
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(known.pid)
        if is_alive(known.pid, known.born):  # looked at after it was opened: now the number cannot be another's
            return pidfd
        os.close(pidfd)
    raise Refusal(f"container {known.id} is not running: its process {known.pid} has ended")


def _hear(line: int, pidfd: int, container_id: str) -> None:
    """What process 1 says on its way from the gate to the program. Raises StartError, for what went wrong there."""
    poll, said = select.poll(), b""
    poll.register(line, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    while True:
        events = dict(poll.poll())
        try:
            data = os.read(line, 1 << 14)
        except BlockingIOError:
            data = b""
            if pidfd not in events:
                continue
        said += data
        if not data and (pidfd in events or line in events):
            break
    if b"ready\n" not in said or b"error " in said:  # it ends; who is told of it may delete the container at once
        select.select([pidfd], [], [], PATIENCE)
    for word in said.decode(errors="replace").splitlines():
        if word.startswith("error "):
            raise explain(json.loads(word.removeprefix("error ")))
    if b"ready\n" not in said:
        raise StartError(f"process 1 of container {container_id} ended before it had started the program")


def _is_locked(directory: str) -> bool:
    """Whether a process is just working on it."""
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno == errno.EWOULDBLOCK
        finally:
            os.close(fd)
    return False


def send_master(path: str, master: int) -> None:
    """Give the master side of the terminal to whoever listens at the unix socket `path` (SCM_RIGHTS)."""
    import socket

    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.connect(path)
            socket.send_fds(line, [b"/dev/ptmx"], [master])
    except OSError as error:
        raise StartError(f"--console-socket {path}: {error.strerror or error}") from None


def _write(file: str, text: str) -> None:
    unfinished = f"{file}.{os.getpid()}"
    with open(unfinished, "w", encoding="utf-8") as opened:
        opened.write(text)
    put_in_place(unfinished, file)


def _remove(directory: str) -> None:
    """Our files in it, and it."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(directory):
            if name == "notify":
                _remove(f"{directory}/{name}")
                continue
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{directory}/{name}")
        os.rmdir(directory)


def _now() -> str:
    import time

    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1e9):09d}Z"
