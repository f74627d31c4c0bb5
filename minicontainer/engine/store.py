"""What the engine remembers, on disk, written before the act: so whatever is killed when, the rest can be told from
here.

STATE/lock                      held (flock(2)) while names are given and taken
STATE/names/NAME → ../containers/ID
STATE/containers/ID/config.json what the container is to be; an ID without one is half made or half removed
                   /state.json  how far it has come: created, starting, running (pid), exited (code)
                   /attended       locked by the process that watches over it while it runs
                   /upper /work its writable layer;  /merged  where its root is mounted, in its own view only
STATE/images/NAME/rootfs
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator

from minicontainer.engine.errors import EngineError
from minicontainer.record import Record
from minicontainer.runtime.limits import Limits
from minicontainer.runtime.spec import DEFAULT_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Config(Record):
    """What a container is to be: the user's wishes, complete enough to start it again tomorrow."""

    id: str
    name: str
    image: str
    """An image's name, or the path of a directory when `rootfs` is set."""
    args: tuple[str, ...]
    rootfs: bool = False
    hostname: str = ""
    domainname: str | None = None
    env: tuple[str, ...] = (f"PATH={DEFAULT_PATH}", "HOME=/root")
    cwd: str = "/"
    terminal: bool = False
    shared: tuple[str, ...] = ()
    """The namespaces that stay the host's, by their names below /proc/PID/ns."""
    volumes: tuple[tuple[str, str, bool], ...] = ()
    """(source on the host, destination, read-only)."""
    devices: tuple[tuple[str, str], ...] = ()
    """(device file of the host, its path inside); what may be done with them is in `limits`."""
    limits: Limits = Limits()
    cgroup_parent: str = ""
    """A group of ours in which the container's own group lies, beside others of its kind."""
    reaper: bool = True
    remove: bool = False
    """Gone as soon as it has ended (--rm)."""
    created: float = 0.0
    """Seconds since the epoch."""

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Read what `to_json` wrote."""
        data = json.loads(text)
        data["limits"] = Limits(**{name: _tuples(value) for name, value in data["limits"].items()})
        for name in ("volumes", "devices"):
            data[name] = _tuples(data.get(name, ()))
        for name in ("args", "env", "shared"):
            data[name] = tuple(data[name])
        return cls(**data)

    def to_json(self) -> str:
        """As text, for config.json."""
        return json.dumps(self.asdict())

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


class Store:
    """The directory that holds all this."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.images = f"{root}/images"
        self._containers = f"{root}/containers"
        self._names = f"{root}/names"
        self._attended: dict[str, int] = {}

    def prepare(self) -> None:
        """Make the directories. Raises EngineError when this user may not."""
        try:
            for directory in (self._containers, self._names, self.images):
                os.makedirs(directory, exist_ok=True)
        except OSError as error:
            raise EngineError(
                f"cannot keep state in {self.root}: {error.strerror}; choose another place: minicontainer --root DIR"
            ) from None

    def directory(self, container_id: str) -> str:
        """Where a container's files are."""
        return f"{self._containers}/{container_id}"

    def add(self, config: Config) -> Config:
        """Remember a new container, give it an id and, unless it has one, a name; the caller watches over it.

        Raises EngineError (name taken).
        """
        with self._lock():
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
                for name in ("upper", "work", "merged"):
                    os.mkdir(f"{directory}/{name}")
                _write(f"{directory}/config.json", config.to_json())  # the last: from here on it is a container
            except BaseException:
                self.forget(config)
                raise
        return config

    def forget(self, config: Config) -> None:
        """Remove everything of a container.

        What it is goes first: killed in between, the rest is known to be rubbish.
        """
        directory = self.directory(config.id)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/config.json")
        self._clear(directory)
        self._unname(config.id, config.name)
        self.leave(config.id)

    def find(self, wanted: str) -> Config:
        """The container with this name, or whose id begins so. Raises EngineError."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            return self.config(os.path.basename(os.readlink(f"{self._names}/{wanted}")))
        matching = [config for config in self.all() if config.id.startswith(wanted)]
        if len(matching) != 1 or not wanted:
            how_many = "more than one container's id begins with" if matching else "there is no container"
            raise EngineError(f'{how_many} "{wanted}"; see: minicontainer ps -a', exit_code=1)
        return matching[0]

    def all(self) -> list[Config]:
        """Every whole container, the oldest first."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for container_id in os.listdir(self._containers):
                with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                    found.append(self.config(container_id))
        return sorted(found, key=lambda config: config.created)

    def config(self, container_id: str) -> Config:
        """What a container is to be. Raises OSError, ValueError (half made, half removed)."""
        return Config.from_json(_read(f"{self.directory(container_id)}/config.json"))

    def change(self, config: Config) -> None:
        """Write down other wishes for a container that is there, whole or not at all."""
        file = f"{self.directory(config.id)}/config.json"
        _write(f"{file}.new", config.to_json())
        os.rename(f"{file}.new", file)

    def state(self, container_id: str) -> State:
        """How far a container has come, as was last written."""
        try:
            return State(**json.loads(_read(f"{self.directory(container_id)}/state.json")))
        except (OSError, ValueError, TypeError):
            return State("created")

    def set_state(self, container_id: str, state: State) -> None:
        """Write it, whole or not at all: a reader sees the old or the new."""
        file = f"{self.directory(container_id)}/state.json"
        _write(f"{file}.new", json.dumps(state.asdict()))
        os.rename(f"{file}.new", file)

    def attend(self, container_id: str) -> None:
        """Become the one process that watches over a container. The kernel forgets it when the process ends, however.

        Raises EngineError: another process does.
        """
        if container_id in self._attended:
            return
        fd = os.open(f"{self.directory(container_id)}/attended", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise EngineError(f"another process is starting or watching over container {container_id}") from None
        os.ftruncate(fd, 0)
        self._attended[container_id] = fd

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
        """Wait until no other process watches over the container; returns the exit status that the last one left."""
        if container_id in self._attended:
            return None  # that is us: we would wait for ourselves
        try:
            fd = os.open(f"{self.directory(container_id)}/attended", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            left = os.read(fd, 16)
            return int(left) if left else None
        finally:
            os.close(fd)

    def rubbish(self) -> list[str]:
        """Remove what is no whole container:

        half-made and half-removed directories, names of nothing. Returns what it was.
        """
        removed = []
        with self._lock():
            for container_id in sorted(os.listdir(self._containers)):
                if not self._is_whole(container_id):
                    self._clear(self.directory(container_id))
                    removed.append(f"container {container_id}, half made or half removed")
            for name in sorted(os.listdir(self._names)):
                if not os.path.exists(f"{self._names}/{name}"):
                    os.unlink(f"{self._names}/{name}")
                    removed.append(f'name "{name}" of no container')
        return removed

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

    def _unname(self, container_id: str, name: str) -> None:
        link = f"{self._names}/{name}"
        with contextlib.suppress(OSError):
            if os.path.basename(os.readlink(link)) == container_id:
                os.unlink(link)

    def _clear(self, directory: str) -> None:
        """rm -r, also of what overlayfs left without permissions.

        Files of subordinate users want their user namespace.
        """
        with contextlib.suppress(OSError):
            os.chmod(f"{directory}/work/work", 0o700)
        try:
            _remove_tree(directory)
        except PermissionError:
            from minicontainer.engine.removal import remove_as_container_root

            remove_as_container_root(directory)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        fd = os.open(f"{self.root}/lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _tuples(value: Any) -> Any:
    """What JSON has as lists."""
    return tuple([_tuples(part) for part in value]) if isinstance(value, list) else value


def _remove_tree(directory: str) -> None:
    """rm -r, following no link; what somebody else removes meanwhile is as good.

    shutil.rmtree does it as well, and takes as long to import as a container to start.
    """
    with contextlib.suppress(FileNotFoundError):
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    _remove_tree(entry.path)
                else:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(entry.path)
        os.rmdir(directory)


def _read(file: str) -> str:
    """All of a small file, without the comforts of open(): four system calls instead of nine.

    Not much room at once: a buffer of a megabyte is a mapping of its own, which costs thrice what the file does.
    """
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = b""
        while more := os.read(fd, 1 << 15):
            text += more
        return text.decode()
    finally:
        os.close(fd)


def _write(file: str, content: str) -> None:
    data = content.encode()
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)
