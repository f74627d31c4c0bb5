"""Named volumes: directories of the engine's own that outlive the containers they are shown in.

STATE/volumes/lock           held (flock(2)) while volumes are made, filled and removed
STATE/volumes/NAME/config.json  labels, when it was made, whether its name is ours (anonymous)
                  /data      what containers see
                  /filling   there while `data` is filled: who finds it begins anew

No count is kept of who uses a volume. It is asked of the containers' configurations, and a container is written down
before its volumes are made: so none is removed that somebody is about to have.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence

from minicontainer.engine.errors import EngineError
from minicontainer.engine.inside import do
from minicontainer.engine.store import Config, Store
from minicontainer.linux import files, open_in
from minicontainer.record import Record, tuples
from minicontainer.steps import Steps


class Volume(Record):
    """One volume."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()
    made: float = 0.0
    """Seconds since the epoch."""
    anonymous: bool = False
    """Nobody has named it: it goes with its container where that is wished (`rm -v`, `run --rm`)."""


class Volumes:
    """Those below an engine's root."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._directory = f"{store.root}/volumes"

    def data(self, name: str) -> str:
        """The directory that containers see."""
        return f"{self._directory}/{name}/data"

    def all(self) -> list[Volume]:
        """Every volume, by name."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(self._directory)):
                with contextlib.suppress(OSError, ValueError, TypeError):
                    found.append(self._read(name))
        return found

    def find(self, name: str) -> Volume:
        """The volume with this name. Raises EngineError."""
        try:
            if "/" in name or name in ("", ".", ".."):
                raise FileNotFoundError
            return self._read(name)
        except (OSError, ValueError, TypeError):
            raise EngineError(f'there is no volume "{name}"; see: minicontainer volume ls', 1) from None

    def create(self, name: str = "", labels: Sequence[tuple[str, str]] = ()) -> Volume:
        """Make a volume, or find the one that has the name already. Raises EngineError."""
        name, anonymous = name or new_name(), not name
        check_name(name)
        with self._locked():
            return self._made(Volume(name, tuple(labels), time.time(), anonymous))

    def provide(self, config: Config, lowers: Sequence[str], steps: Steps) -> None:
        """Make the volumes of a container that are not there yet, and fill empty ones with what its image has there.

        `lowers` are the layers that the container stands on, the topmost first. Not with the option "nocopy". Raises
        EngineError; what was made stays, since the next try wants it.
        """
        for kind, name, destination, options in config.mounts:
            if kind != "volume":
                continue
            with self._locked():
                self._made(Volume(name, (), time.time(), "anonymous" in options))
                if "nocopy" not in options:
                    self._fill(name, config, lowers, destination, steps)

    def remove(self, name: str) -> None:
        """Remove a volume with all that is in it. Raises EngineError: a container has it."""
        self.find(name)
        with self._locked():
            users = self.users().get(name)
            if users:
                raise EngineError(
                    f'volume "{name}" is used by {", ".join(users)}; first: minicontainer rm {" ".join(users)}', 1
                )
            self._clear(name)

    def prune(self, *, named: bool = False) -> list[str]:
        """Remove every anonymous volume that no container has, and with `named` the others too; their names."""
        removed = []
        with self._locked():
            users = self.users()
            for volume in self.all():
                if volume.name not in users and (named or volume.anonymous):
                    self._clear(volume.name)
                    removed.append(volume.name)
        return removed

    def remove_anonymous(self, config: Config) -> None:
        """Remove the volumes of a container that nobody has named, and no other container has."""
        names = {name for kind, name, _, options in config.mounts if kind == "volume" and "anonymous" in options}
        if names:
            with self._locked():
                users = self.users(without=config.id)
                for name in names - users.keys():
                    self._clear(name)

    def users(self, without: str = "") -> dict[str, list[str]]:
        """Volume's name → the names of the containers that have it, running or not."""
        found = dict[str, list[str]]()
        for config in self._store.all():
            if config.id != without:
                for name in {name for kind, name, _, _ in config.mounts if kind == "volume"}:
                    found.setdefault(name, []).append(config.name)
        return found

    def repair(self) -> list[str]:
        """Remove volumes that are half made or half removed; a line for each."""
        done = []
        with self._locked():
            for name in sorted(os.listdir(self._directory)):
                if name != "lock" and not os.path.exists(f"{self._directory}/{name}/config.json"):
                    self._clear(name)
                    done.append(f'volume "{name}", half made or half removed')
        return done

    def _made(self, volume: Volume) -> Volume:
        directory = f"{self._directory}/{volume.name}"
        with contextlib.suppress(OSError, ValueError, TypeError):
            return self._read(volume.name)
        try:
            self._store.clear(directory)
            os.mkdir(directory, 0o711)
            os.mkdir(f"{directory}/data", 0o755)
            os.chmod(f"{directory}/data", 0o755)  # whatever the umask
            files.write(f"{directory}/config.json", json.dumps(volume.asdict()))  # the last: now it is one
        except OSError as error:
            self._store.clear(directory)
            raise EngineError(f'cannot make volume "{volume.name}": {error.strerror}') from None
        return volume

    def _read(self, name: str) -> Volume:
        data = json.loads(files.read(f"{self._directory}/{name}/config.json"))
        return Volume(**{field: tuples(value) for field, value in data.items()})

    def _clear(self, name: str) -> None:
        directory = f"{self._directory}/{name}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/config.json")  # the first: what is left is known to be rubbish
        self._store.clear(directory)

    def _fill(self, name: str, config: Config, lowers: Sequence[str], place: str, steps: Steps) -> None:
        """Copy what the image has at `place`, if the volume is empty, or was filled by somebody who was killed."""
        data, mark = self.data(name), f"{self._directory}/{name}/filling"
        if os.path.exists(mark):
            self._store.clear(data)
            os.mkdir(data, 0o755)
        elif os.listdir(data):
            return
        os.close(os.open(mark, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        merged = f"{self._store.directory(config.id)}/merged"

        def copy() -> None:
            """In a mount namespace of our own, in which the layers are one tree."""
            steps.make_private()
            steps.stack(list(lowers), "", "", merged)
            root = os.open(merged, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                source = open_in(root, place.strip("/"), os.O_RDONLY | os.O_DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                return  # the image has nothing there
            steps.copy_tree(source, os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

        try:
            do(steps, copy, mapped=True)
        except OSError as error:
            reason = error.strerror or os.strerror(error.errno or errno.EIO)
            raise EngineError(f'cannot fill volume "{name}" with what the image has at {place}: {reason}') from None
        os.unlink(mark)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        os.makedirs(self._directory, mode=0o711, exist_ok=True)
        with files.locked(f"{self._directory}/lock", fcntl.LOCK_EX):
            yield


def new_name() -> str:
    """For a volume that nobody names, as docker's are."""
    return os.urandom(32).hex()


def check_name(name: str) -> None:
    """Raises EngineError: this cannot be the name of a volume."""
    allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
    if not name or set(name) - set(allowed) or name[0] in ".-" or name == "lock" or len(name) > 255:
        raise EngineError(
            f'"{name}" cannot be a volume: its name has letters, digits, "_", "." and "-", and none of ".-" first; '
            f"a directory is written with a slash: ./{name}"
        )
