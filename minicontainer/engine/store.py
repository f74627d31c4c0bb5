"""What the engine remembers, on disk, written before the act: so whatever is killed when, the rest can be told from
here.

STATE/lock                      held (flock(2)) while names are given and taken
STATE/names/NAME → ../containers/ID
STATE/containers/ID/config.json what the container is to be; an ID without one is half made or half removed
                   /state.json  how far it has come: created, starting, running (pid), exited (code)
                   /attended       locked by the process that watches over it while it runs: who started it, or,
                                where nobody stays with it, its own process 1, which notes in it how it ends
                   /networked   there while it may have addresses or ports of a network
                   /hosts /resolv.conf /hostname  mounted below its /etc, where it has a network
                   /log         what such a one has written;  /stdin  a named pipe: what it is to read (-i)
                   /snapshots /restoring /freezing  see `engine.snapshots`
                   /restarts /health  see `engine.restarting`, `engine.health`
                   /upper /work its writable layer;  /merged  where its root is mounted, in its own view only
STATE/images/                   an OCI image layout: `minicontainer.images.content`
STATE/layers/NAME/diff          a read-only layer of whatever image or snapshot, unpacked, as overlayfs takes it
STATE/mounts/HEX.json           an image that is mounted on the host: `minicontainer.engine.image_mounts`
STATE/events                    a line for each thing that happens to a container: `tell`, `minicontainer.engine.events`
STATE/kept/ID, keeper.lock      who is to be restarted or checked: `minicontainer.engine.keeper`
STATE/volumes/NAME/             directories that outlive containers: `minicontainer.engine.volumes`
STATE/seccomp/…                 filters of system calls, compiled once
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator

from minicontainer.engine.errors import EngineError
from minicontainer.engine.rights import Rights
from minicontainer.linux import files
from minicontainer.record import Record, tuples
from minicontainer.runtime.errors import did_you_mean
from minicontainer.runtime.limits import Limits
from minicontainer.runtime.spec import DEFAULT_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minicontainer.network.wishes import Attachment, Port
    from minicontainer.steps.user import IdMap


EVENTS_KEPT = (1 << 20, 4)
"""So many bytes of what has happened, and as many again, up to so many times."""


class Check(Record):
    """How to see whether a container is well, as far as its user, or its image, says: see `engine.health`."""

    test: tuple[str, ...] = ()
    """``CMD``, program, arguments…; ``CMD-SHELL``, a line for its shell; ``NONE``, in spite of its image."""
    interval: float | None = None
    """Seconds between two checks; 0: only when it is asked for."""
    timeout: float | None = None
    start_period: float | None = None
    """Seconds in which it is not expected to be well."""
    retries: int | None = None
    """How many failures in a row make it unhealthy."""
    on_failure: str | None = None

    def over(self, image: tuple[Any, ...]) -> Check:
        """With what the image says, the first five of these, where its user says nothing."""
        theirs = dict(zip(self.asdict(), image, strict=False))
        said = {name: value for name, value in self.asdict().items() if value not in (None, ())}
        return Check(**{**theirs, **said})

    @property
    def every(self) -> float:
        """Seconds between two checks; 30, as docker has it."""
        return 30.0 if self.interval is None else self.interval

    @property
    def limit(self) -> float:
        """Seconds that a check may take: 30."""
        return self.timeout or 30.0

    @property
    def tries(self) -> int:
        """Failures in a row that make it unhealthy: 3."""
        return self.retries or 3


class Config(Record):
    """What a container is to be: the user's wishes, complete enough to start it again tomorrow."""

    id: str
    name: str
    image: str
    """An image's name as its user wrote it, or the path of a directory when `rootfs` is set."""
    args: tuple[str, ...]
    rootfs: bool = False
    image_id: str = ""
    """The digest of the image's configuration: what the name stood for when the container was made."""
    layers: tuple[str, ...] = ()
    """What lies below its writable layer, the topmost first: names of directories in STATE/layers."""
    hostname: str = ""
    domainname: str | None = None
    env: tuple[str, ...] = (f"PATH={DEFAULT_PATH}", "HOME=/root")
    cwd: str = ""
    """"" is what the image says, or /."""
    makes_cwd: bool = False
    """It is made if it is not there, as an image's is."""
    user: str = ""
    """Who the program is, as an image says it: NAME, UID, NAME:GROUP…, looked up in the container's own /etc/passwd and
    /etc/group whenever it starts. "": `rights.user`."""
    stop_signal: str = ""
    """What `stop` sends: SIGTERM unless given."""
    labels: tuple[tuple[str, str], ...] = ()
    exposed_ports: tuple[str, ...] = ()
    """``80/tcp``: what the image says that it serves; nothing is published by that."""
    image_volumes: tuple[str, ...] = ()
    """Where the image says that data is, which is not a part of it."""
    terminal: bool = False
    interactive: bool = False
    """Left alone, it has a standard input that `attach` can write to."""
    shared: tuple[str, ...] = ()
    """The namespaces that stay the host's, by their names below /proc/PID/ns."""
    networks: tuple[Attachment, ...] = ()
    """What it is connected to; without any, it has a loopback only. Of "container:NAME" it shares the network."""
    ports: tuple[Port, ...] = ()
    """Those of its ports that are published at the host's."""
    dns: tuple[str, ...] = ()
    """Servers to ask about names that its networks do not know, in place of the host's."""
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    add_hosts: tuple[str, ...] = ()
    """``NAME:ADDRESS``, for its /etc/hosts."""
    volumes: tuple[tuple[str, str, bool], ...] = ()
    """(source on the host, destination, read-only)."""
    mounts: tuple[tuple[str, str, str, tuple[str, ...]], ...] = ()
    """What else is mounted, volumes among it: (type, source, destination, options), see `engine.mounting`."""
    devices: tuple[tuple[str, str], ...] = ()
    """(device file of the host, its path inside); what may be done with them is in `limits`."""
    limits: Limits = Limits()
    rights: Rights = Rights()
    uid_maps: tuple[IdMap, ...] = ()
    """Its users, where they are somebody else on the host: see `engine.remapping`."""
    gid_maps: tuple[IdMap, ...] = ()
    own_ids: bool = False
    """These are ids that no other container has, chosen when it is made."""
    clock_offsets: tuple[int, int] = (0, 0)
    """Seconds by which its monotonic and its boot-time clock are ahead of the host's."""
    log_pieces: tuple[int, int] = (0, 1)
    """Of its log, so many pieces of so many bytes are kept: (bytes, pieces). 0 bytes: all of it is."""
    cgroup_parent: str = ""
    """A group of ours in which the container's own group lies, beside others of its kind."""
    reaper: bool = True
    systemd: bool = False
    """Its process 1 is a systemd, or what wants the same: see `engine.systemd`."""
    remove: bool = False
    """Gone as soon as it has ended (--rm)."""
    restart: str = ""
    """What is done when it has ended: no, always, unless-stopped, on-failure, on-failure:N; see `engine.restarting`."""
    health: Check = Check()
    origin: str = ""
    """Of a clone: the id of the container that it was made of, or ID/SNAPSHOT."""
    debugs: str = ""
    """The id of the container among whose processes it is: see `engine.debugging`."""
    created: float = 0.0
    """Seconds since the epoch."""

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Read what `to_json` wrote."""
        data = json.loads(text)
        data["limits"] = Limits(**{name: tuples(value) for name, value in data["limits"].items()})
        data["rights"] = Rights(**{name: tuples(value) for name, value in data.get("rights", {}).items()})
        data["health"] = Check(**{name: tuples(value) for name, value in data.get("health", {}).items()})
        for name in ("volumes", "mounts", "devices", "labels", "uid_maps", "gid_maps"):
            data[name] = tuples(data.get(name, ()))
        for name in ("args", "env", "shared"):
            data[name] = tuple(data[name])
        data["clock_offsets"] = tuple(data.get("clock_offsets", (0, 0)))
        data["log_pieces"] = tuple(data.get("log_pieces", (0, 1)))
        for name in ("layers", "exposed_ports", "image_volumes", "dns", "dns_search", "dns_options", "add_hosts"):
            data[name] = tuple(data.get(name, ()))
        if data.get("networks"):
            from minicontainer.network.wishes import attachments_of, ports_of

            data["networks"], data["ports"] = attachments_of(data), ports_of(data)
        else:
            data["networks"], data["ports"] = (), ()
        return cls(**data)

    def to_json(self) -> str:
        """As text, for config.json."""
        networks = [network.asdict() for network in self.networks]
        return json.dumps({**self.asdict(), "networks": networks, "ports": [port.asdict() for port in self.ports]})

    @property
    def group(self) -> str:
        """The name of its control group."""
        return f"{self.cgroup_parent}/{self.id}" if self.cgroup_parent else self.id


class State(Record):
    """How far a container has come."""

    status: str
    """created, starting, running or exited."""
    pid: int | None = None
    """Of init, while it runs."""
    started: int | None = None
    """When that process was born, in clock ticks since boot: with the pid it names the process for good."""
    exit_code: int | None = None
    oom_killed: bool = False
    """Whether the kernel killed one of its processes for want of memory."""
    detached: bool = False
    """Nobody stays with it: how it ended is in /attended, until somebody looks."""
    began: float | None = None
    """When its program was started, in seconds since the epoch."""
    finished: float | None = None


class Store:
    """The directory that holds all this."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.images = f"{root}/images"
        self.layers = f"{root}/layers"
        self._containers = f"{root}/containers"
        self._names = f"{root}/names"
        self._attended: dict[str, int] = {}
        self.unswept: set[str] | None = None
        """While we keep layers from being swept: those that we shall sweep after it."""

    def prepare(self) -> None:
        """Make the directories. Raises EngineError when this user may not."""
        try:
            for directory in (self._containers, self._names, self.images, self.layers):
                os.makedirs(directory, exist_ok=True)
        except OSError as error:
            raise EngineError(
                f"cannot keep state in {self.root}: {error.strerror}; choose another place: minicontainer --root DIR"
            ) from None

    def directory(self, container_id: str) -> str:
        """Where a container's files are."""
        return f"{self._containers}/{container_id}"

    def layer(self, name: str) -> str:
        """The tree of a layer."""
        return f"{self.layers}/{name}/diff"

    def add(self, config: Config, upper: Callable[[str], object] = os.mkdir) -> Config:
        """Remember a new container, give it an id and, unless it has one, a name; the caller watches over it.

        `upper` makes its writable layer, an empty directory unless given. Raises EngineError (name taken).
        """
        with self._lock():
            if config.own_ids:
                from minicontainer.engine.remapping import with_ids_of_its_own

                config = with_ids_of_its_own(config, self)
            container_id = os.urandom(6).hex()
            config = config.replace(
                id=container_id,
                name=config.name or f"c-{container_id[:6]}",
                hostname=config.hostname or container_id,
            )
            directory = self.directory(container_id)
            os.mkdir(directory, 0o711)
            try:
                self._name(config)
                self.attend(container_id)
                for name in ("work", "merged"):
                    os.mkdir(f"{directory}/{name}")
                upper(f"{directory}/upper")
                files.write(f"{directory}/config.json", config.to_json())  # the last: from here on it is a container
            except BaseException:
                self._drop(config)
                raise
        self.tell(config, "create")
        return config

    def forget(self, config: Config, exit_code: int | None = None, *, volumes: bool = False) -> None:
        """Remove everything of a container; with `volumes`, and of one that was to go by itself, those without a name.

        `exit_code` is for those who wait for it. What it is goes first: killed in between, the rest is known to be
        rubbish. Frozen layers that only it or its snapshots have named go as well.
        """
        config = self._as_it_is_called(config)
        directory, layers = self.directory(config.id), set[str]()
        if config.mounts and (volumes or config.remove):
            from minicontainer.engine.volumes import Volumes

            Volumes(self).remove_anonymous(config)
        if any(name.startswith("snap-") for name in config.layers) or os.path.isdir(f"{directory}/snapshots"):
            from minicontainer.engine import snapshots

            layers = snapshots.named_by(self, config)
        self.tell(config, "destroy")
        self._drop(config, exit_code)
        if layers:
            snapshots.sweep(self, layers)

    def _drop(self, config: Config, exit_code: int | None = None) -> None:
        directory = self.directory(config.id)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/config.json")
        self.clear(directory)
        self._unname(config.id, config.name)
        self.leave(config.id, exit_code)

    def find(self, wanted: str) -> Config:
        """The container with this name, or whose id begins so. Raises EngineError."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            return self.config(os.path.basename(os.readlink(f"{self._names}/{wanted}")))
        matching = [config for config in self.all() if config.id.startswith(wanted)]
        if len(matching) != 1 or not wanted:
            how_many = "more than one container's id begins with" if matching else "there is no container"
            like = "" if matching else did_you_mean(wanted, os.listdir(self._names) if self.ids() else ())
            raise EngineError(f'{how_many} "{wanted}"{like or "; see: minicontainer ps -a"}', exit_code=1)
        return matching[0]

    def ids(self) -> list[str]:
        """Of every container, half made and half removed ones among them."""
        with contextlib.suppress(FileNotFoundError):
            return os.listdir(self._containers)
        return []

    def all(self) -> list[Config]:
        """Every whole container, the oldest first."""
        found = []
        for container_id in self.ids():
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                found.append(self.config(container_id))
        return sorted(found, key=lambda config: config.created)

    def config(self, container_id: str) -> Config:
        """What a container is to be. Raises OSError, ValueError (half made, half removed)."""
        return Config.from_json(files.read(f"{self.directory(container_id)}/config.json"))

    def change(self, config: Config) -> None:
        """Write down other wishes for a container that is there, whole or not at all.

        What it lies on is no wish, and stays as it is: a snapshot may have changed it since the caller looked.
        """
        with self._lock():
            self._write(config.replace(layers=self.config(config.id).layers))

    def rename(self, config: Config, name: str) -> Config:
        """Give a container another name. Raises EngineError: it is taken.

        The new name is there before the old one goes: killed in between, it has both, until `rubbish` looks.
        """
        with self._lock():
            renamed = self.config(config.id).replace(name=name)
            self._name(renamed)
            try:
                self._write(renamed)
            except BaseException:
                self._unname(config.id, name)
                raise
            self._unname(config.id, config.name)
        return renamed

    def relayer(self, container_id: str, layers: tuple[str, ...]) -> Config:
        """Write down that a container lies on other layers, whole or not at all. Raises OSError, ValueError."""
        with self._lock():
            config = self.config(container_id).replace(layers=layers)
            self._write(config)
        return config

    def _write(self, config: Config) -> None:
        files.replace(f"{self.directory(config.id)}/config.json", config.to_json())

    def is_there(self, config: Config) -> bool:
        """Whether a container is still remembered."""
        return os.path.exists(f"{self.directory(config.id)}/config.json")

    def tell(
        self, config: Config, action: str = "", state: str = "", when: float | None = None, **more: object
    ) -> None:
        """Tell whoever wants to hear it what happens to a container: docker's word, LXC's state, or both, and details.

        An end is told before it is written down, so that a `kill -9` in between lets it be told twice and not never.
        Nothing fails because of it, on a full disk say. A newline comes first too: another's line may have been torn.
        """
        event = {
            "time": time.time() if when is None else when,
            "id": config.id,
            "name": config.name,
            "image": config.image,
            "action": action,
            "state": state,
            "attributes": {name: str(value) for name, value in (*config.labels, *more.items())},
        }
        with contextlib.suppress(OSError):
            fd = os.open(f"{self.root}/events", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                files.append(fd, b"\n%b\n" % json.dumps(event).encode(), *EVENTS_KEPT)
            finally:
                os.close(fd)

    def tell_end(self, config: Config, code: int | None, oom_killed: bool, when: float | None = None) -> None:
        """Likewise, that it has ended; `code` None: how is not known."""
        config = self._as_it_is_called(config)
        if oom_killed:
            self.tell(config, "oom", when=when)
        self.tell(config, "die", "STOPPED", when, **({} if code is None else {"exitCode": code}))

    def tell_failure(self, config: Config) -> None:
        """Likewise, that it could not be started."""
        self.tell(config, state="ABORTING")
        self.tell(config, state="STOPPED")

    def state(self, container_id: str) -> State:
        """How far a container has come, as was last written."""
        try:
            return State(**json.loads(files.read(f"{self.directory(container_id)}/state.json")))
        except (OSError, ValueError, TypeError):
            return State("created")

    def set_state(self, container_id: str, state: State) -> None:
        """Write it, whole or not at all: a reader sees the old or the new."""
        file = f"{self.directory(container_id)}/state.json"
        files.replace(file, json.dumps(state.asdict()))

    def attend(self, container_id: str) -> bool:
        """Become the one process that watches over a container. The kernel forgets it when the process ends, however.

        False: we are already. Raises EngineError: another process is.
        """
        if container_id in self._attended:
            return False
        fd = os.open(f"{self.directory(container_id)}/attended", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise EngineError(f"another process is starting or watching over container {container_id}") from None
        os.ftruncate(fd, 0)
        self._attended[container_id] = fd
        return True

    def leave(self, container_id: str, exit_code: int | None = None) -> None:
        """Be it no more; `exit_code` is for those who wait, and find the container itself removed."""
        fd = self._attended.pop(container_id, None)
        if fd is not None:
            if exit_code is not None:
                os.write(fd, str(exit_code).encode())
            os.close(fd)

    def attended(self, container_id: str, *, also_by_us: bool = False) -> bool:
        """Whether another process watches over the container; `also_by_us`: or we do."""
        if container_id in self._attended:
            return also_by_us
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(f"{self.directory(container_id)}/attended", os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(fd)
        return False

    def wait(self, container_id: str) -> int | None:
        """Wait until no other process watches over the container; returns the exit status that the last one left.

        128 + SIGKILL: one that nobody stayed with, and whose process 1 had no time to write it.
        """
        if container_id in self._attended:
            return None  # that is us: we would wait for ourselves
        with self.waiter(container_id) as end:
            return end()

    @contextlib.contextmanager
    def waiter(self, container_id: str) -> Iterator[Callable[[], int | None]]:
        """What waits so; made now, it can still tell when the container is removed as soon as it has ended."""
        fd = -1
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(f"{self.directory(container_id)}/attended", os.O_RDONLY | os.O_CLOEXEC)

        def end() -> int | None:
            if fd < 0:
                return None
            fcntl.flock(fd, fcntl.LOCK_SH)
            begun, code = _recorded(fd)
            fcntl.flock(fd, fcntl.LOCK_UN)  # there may be something left to put away, which takes the lock
            return 137 if begun and code is None else code

        try:
            yield end
        finally:
            if fd >= 0:
                os.close(fd)

    def lock_of(self, container_id: str) -> int:
        """The file descriptor by which we watch over a container, for its process 1 to inherit."""
        return self._attended[container_id]

    def record(self, container_id: str) -> tuple[bool, int | None]:
        """Of a container that nobody stays with: whether its program has been started, and its exit status."""
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(f"{self.directory(container_id)}/attended", os.O_RDONLY | os.O_CLOEXEC)
            try:
                return _recorded(fd)
            finally:
                os.close(fd)
        return False, None

    def ended_at(self, container_id: str) -> float | None:
        """When the exit status was written, in seconds since the epoch."""
        with contextlib.suppress(FileNotFoundError):
            return os.stat(f"{self.directory(container_id)}/attended").st_mtime
        return None

    @contextlib.contextmanager
    def claimed(self, container_id: str, *, patient: bool) -> Iterator[bool]:
        """Watch over a container for a moment, and leave what is recorded; False: somebody else does (or it is gone).

        `patient`: wait for them.
        """
        try:
            fd = os.open(f"{self.directory(container_id)}/attended", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            yield False
            return
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | (0 if patient else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(fd)

    def networked(self, container_id: str) -> str:
        """The file that says that a container may have something of a network: made before, removed after."""
        return f"{self.directory(container_id)}/networked"

    def log(self, container_id: str) -> str:
        """Where the log of a container is that nobody stays with; it is there from its first start."""
        return f"{self.directory(container_id)}/log"

    def open_log(self, container_id: str) -> int:
        """It, to be written to at its end: that of a line, whatever became of the last one who wrote."""
        fd = os.open(self.log(container_id), os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                os.write(fd, b"\n")
        except BaseException:
            os.close(fd)
            raise
        return fd

    def stdin(self, container_id: str) -> str:
        """The named pipe that is the standard input of a container that nobody stays with."""
        return f"{self.directory(container_id)}/stdin"

    def open_stdin(self, container_id: str) -> int:
        """It, both ways: so it is never at its end, and whoever opens it to write does not wait."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.stdin(container_id))  # what an earlier start has not read
        os.mkfifo(self.stdin(container_id), 0o600)
        return os.open(self.stdin(container_id), os.O_RDWR | os.O_CLOEXEC)

    def cached_filter(self, name: str, make: Callable[[], bytes]) -> bytes:
        """What `make` makes, kept below the state directory under `name`; what cannot be kept is made each time."""
        file = f"{self.root}/seccomp/{name}"
        with contextlib.suppress(OSError):
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.read(fd, 1 << 16)
            finally:
                os.close(fd)
        made = make()
        with contextlib.suppress(OSError), self._lock():
            os.makedirs(os.path.dirname(file), mode=0o700, exist_ok=True)
            files.write(f"{self.root}/seccomp/new", made)
            os.rename(f"{self.root}/seccomp/new", file)
        return made

    def rubbish(self) -> list[str]:
        """Remove what is no whole container:

        half-made and half-removed directories, names of nothing. Returns what it was.
        """
        removed = []
        with self._lock():
            for container_id in sorted(os.listdir(self._containers)):
                if not self._is_whole(container_id):
                    self.clear(self.directory(container_id))
                    removed.append(f"container {container_id}, half made or half removed")
            for name in sorted(os.listdir(self._names)):
                if not os.path.exists(f"{self._names}/{name}"):
                    os.unlink(f"{self._names}/{name}")
                    removed.append(f'name "{name}" of no container')
                elif self._is_stale(name):
                    os.unlink(f"{self._names}/{name}")
                    removed.append(f'name "{name}", which is not its container\'s')
        if any(name != "lock" for name in os.listdir(self.layers)):
            from minicontainer.engine import snapshots

            removed += [f"layer {name}, which nobody names" for name in snapshots.sweep(self)]
        return removed

    def _is_stale(self, name: str) -> bool:
        """Whether a name is another one than its container's: a `rename` was killed."""
        try:
            return self.config(os.path.basename(os.readlink(f"{self._names}/{name}"))).name != name
        except (OSError, ValueError, TypeError, KeyError):
            return False

    def _is_whole(self, container_id: str) -> bool:
        try:
            self.config(container_id)
        except (OSError, ValueError):  # not there; there, and no JSON
            return False
        except (TypeError, KeyError):  # JSON with other fields: of another version of ours, which may still want it
            return True
        return True

    def _name(self, config: Config) -> None:
        try:
            os.symlink(f"../containers/{config.id}", f"{self._names}/{config.name}")
        except FileExistsError:
            raise EngineError(
                f'the name "{config.name}" is taken; choose another, or remove that container: '
                f"minicontainer rm {config.name}"
            ) from None

    def _as_it_is_called(self, config: Config) -> Config:
        """The same container with the name that it has by now: whoever has it may have had it for long."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            if not os.path.lexists(f"{self._names}/{config.name}"):
                return config.replace(name=self.config(config.id).name)
        return config

    def _unname(self, container_id: str, name: str) -> None:
        link = f"{self._names}/{name}"
        with contextlib.suppress(OSError):
            if os.path.basename(os.readlink(link)) == container_id:
                os.unlink(link)

    def clear(self, directory: str) -> None:
        """rm -r, also of what overlayfs left without permissions.

        Files of subordinate users want their user namespace.
        """
        with contextlib.suppress(OSError):
            os.chmod(f"{directory}/work/work", 0o700)
        try:
            remove_tree(directory)
        except PermissionError:
            from minicontainer.engine.removal import remove_as_container_root

            remove_as_container_root(directory)

    def _lock(self) -> contextlib.AbstractContextManager[None]:
        return files.locked(f"{self.root}/lock", fcntl.LOCK_EX)


def _recorded(attended: int) -> tuple[bool, int | None]:
    """What is in there: "" or "started", and an exit status. `runtime.keeping` writes both, `leave` only that."""
    text = os.pread(attended, 64, 0).decode(errors="replace")
    code = text.removeprefix("started").strip()
    return text.startswith("started"), int(code) if code.isdecimal() else None


def remove_tree(directory: str) -> None:
    """rm -r, following no link; what somebody else removes meanwhile is as good.

    A directory that is not empty has its own directories moved to the top, where their turn comes: however deep a
    container has made them, no path is too long for the kernel, and no more than two are open. shutil.rmtree goes to
    their depth, and takes as long to import as a container to start.
    """
    with contextlib.suppress(FileNotFoundError):
        top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            while inner := _remove_files(top):
                for name in inner:
                    with contextlib.suppress(FileNotFoundError):
                        _remove_level(name, top)
        finally:
            os.close(top)
        os.rmdir(directory)


def _remove_level(name: str, top: int) -> None:
    """Remove a directory in the directory `top`; those in it are then there."""
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        for inner in _remove_files(fd):
            os.rename(inner, os.urandom(8).hex(), src_dir_fd=fd, dst_dir_fd=top)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=top)


def _remove_files(directory: int) -> list[str]:
    """Remove all in an open directory that is no directory itself. Returns the names of those that are."""
    inner = list[str]()
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                inner.append(entry.name)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.name, dir_fd=directory)
    return inner
