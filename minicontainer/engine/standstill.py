"""A snapshot of a container that runs: it stands still, its upper layer is frozen, it goes on.

Best under a new root: the upper layer becomes a snapshot in place, whatever its size, and an overlay with an empty one
takes the old root's place under the processes (`steps.reroot`). They must not notice. So nobody may hold anything of
the old root but its top: no file, no working directory, no socket; `_in_the_way` looks. Where somebody does, the upper
layer is copied while all stand still; where the file system can share blocks (reflink), without its contents.

    the caller      waits for
      └─ a child    of whom the container knows nothing: stops it, does all this, lets it go on; whatever becomes of
                    the caller. If the child itself is killed, STATE/containers/ID/freezing says how far it can have
                    come, and `set_going` finishes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator

from minicontainer.engine.errors import EngineError
from minicontainer.engine.snapshots import Taking, alone, as_owner, kept, new_layer, shortened, told
from minicontainer.engine.store import Config, State
from minicontainer.linux import (
    Namespace,
    clone3,
    files,
    is_single_threaded,
    set_title,
    signal,
)
from minicontainer.steps.group import Group, find_group


def freeze_running(taking: Taking, config: Config, state: State) -> tuple[str, ...]:
    """The layers that show what a running container shows now. As `snapshots.freeze`. Raises EngineError."""
    if not is_single_threaded():
        raise EngineError("this process has several threads: use the command, minicontainer snapshot")
    group = find_group(config.group)
    if "freezer" not in group:
        raise EngineError(
            f'container "{config.name}" runs, and has no control group by which it could stand still; stop it first: '
            f"minicontainer stop {config.name}", 1
        )  # fmt: skip
    config = shortened(taking, config)
    layer = new_layer(taking.store)
    before = config.layers

    def freeze() -> str:
        return _Standstill(taking, config, state.pid or 0, group).freeze(layer)

    try:
        with told(f'cannot take a snapshot of container "{config.name}"'):
            copied = _apart(freeze)
    except BaseException:
        with contextlib.suppress(OSError, ValueError):
            if layer not in taking.store.config(config.id).layers:
                taking.store.clear(f"{taking.store.layers}/{layer}")
        raise
    if copied:
        taking.warn(f'what container "{config.name}" has written was copied while it stood still: {copied}')
    return (layer, *before)


def set_going(taking: Taking, config: Config) -> list[str]:
    """Let a container go on whose snapshot was being taken by somebody who was killed. Raises EngineError."""
    with alone(taking.store, config), kept(taking.store), told(f'cannot set container "{config.name}" going'):
        try:
            noted = json.loads(files.read(_note(taking, config)))
        except FileNotFoundError:
            return []  # somebody was just doing it, and has done it
        state = taking.state(config)
        if state.status == "running":
            config = taking.store.config(config.id)
            standstill = _Standstill(taking, config, state.pid or 0, find_group(config.group))
            _apart(lambda: standstill.finish(noted))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_note(taking, config))
    return [f'container "{config.name}" goes on, which stood still for a snapshot']


class _Standstill:
    """In the child: one container that runs."""

    def __init__(self, taking: Taking, config: Config, pid: int, group: Group) -> None:
        self.store, self.steps, self.taking = taking.store, taking.steps, taking
        self.config, self.pid, self.group = config, pid, group
        self.directory = taking.store.directory(config.id)
        self.note = _note(taking, config)
        self.half_way = False
        """Whether the container may be between two roots, so that what is noted must stay."""

    def freeze(self, layer: str) -> str:
        """Freeze what it has written as this layer. Returns why that had to be copied; "": it was not."""
        paused = bool(self.steps.is_frozen(self.group))
        upper = os.stat(f"{self.directory}/upper").st_ino
        files.replace(self.note, json.dumps({"paused": paused, "upper": upper, "root": None}))
        try:
            if not paused:
                self.steps.freeze(self.group)
            why = self._exchange(layer, paused, upper)
            if why:
                as_owner(self.steps, "copy", f"{self.directory}/upper", self.store.layer(layer))
        finally:
            if not paused:
                self.steps.thaw(self.group)
            if not self.half_way:
                os.unlink(self.note)
        return why

    def _exchange(self, layer: str, paused: bool, upper: int) -> str:
        """In place; or why that cannot be, and then nothing is changed."""
        if self.config.uid_maps:
            return "the owners of its files are shown through maps"
        try:
            root = _mount_number(f"/proc/{self.pid}/root")
            why = _in_the_way(self.pid, root, self.group)
            if why:
                return why
            files.replace(self.note, json.dumps({"paused": paused, "upper": upper, "root": root}))
            self._enter()
            self.steps.seal_root(self.pid)
        except OSError as error:
            return "a file is open for writing" if error.errno == errno.EBUSY else f"{error.strerror or error}"
        before = self.config
        try:
            layers = (layer, *self.config.layers)
            self.steps.take(
                f"{self.directory}/upper",
                self.store.layer(layer),
                lambda: self.store.relayer(self.config.id, layers),
            )
        except BaseException:
            self.steps.unseal_root(self.pid)
            raise
        self.config, self.half_way = before.replace(layers=layers), True
        try:
            self._replace_root(root)
        except OSError as error:
            if _mount_number(f"/proc/{self.pid}/root") != root:
                raise  # it has the new one already: there is no way back; what is left to be moved, `finish` will
            self.config = before
            self._undo(root, layer)
            self.half_way = False
            return f"{error.strerror or error}"
        self.half_way = False
        return ""

    def _undo(self, root: int, layer: str) -> None:
        """As long as the container has its old root: that gets its layer back."""
        frozen = self.store.layer(layer)
        files.exchange(f"{self.directory}/upper", frozen)
        self.store.relayer(self.config.id, self.config.layers)
        os.rmdir(frozen)
        self.steps.unseal_root(self.pid)

    def finish(self, noted: dict[str, int | None]) -> str:
        """From what was noted: back, if the layer was not frozen yet; else on."""
        root = noted["root"]
        try:
            if root is not None:
                self._enter()
                if _mount_number(f"/proc/{self.pid}/root") != root:
                    self.steps.replace_root(self.pid, -1, root)
                elif os.stat(f"{self.directory}/upper").st_ino != noted["upper"]:
                    self._replace_root(root)
                else:
                    self.steps.unseal_root(self.pid)
        finally:
            if not noted["paused"]:
                self.steps.thaw(self.group)
        return ""

    def _replace_root(self, root: int) -> None:
        """An overlay over the frozen layer in place of the old root.

        With a work directory of its own: the old one is in use until the last process has let go of the old root, and
        an overlay begins by emptying it.
        """
        work = f"{self.directory}/work.{os.urandom(4).hex()}"
        os.mkdir(work, 0o700)
        merged = f"{self.directory}/merged"
        self.steps.stack(self.taking.bottom(self.config), f"{self.directory}/upper", work, merged)
        new = self.steps.pick_up(merged, False)
        self.steps.replace_root(self.pid, new, root)
        os.close(new)

    def _enter(self) -> None:
        """Have mounts of our own, and rights over those of the container."""
        if Namespace.USER.link(self.pid) != Namespace.USER.link():
            self.steps.join(self.pid, [Namespace.USER])
        self.steps.make_private()


def _note(taking: Taking, config: Config) -> str:
    return f"{taking.store.directory(config.id)}/freezing"


def _apart(act: Callable[[], str]) -> str:
    """What `act` returns, in a child that is waited for, and goes on when we are killed. OSError, EngineError."""
    read, write = os.pipe2(os.O_CLOEXEC)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # ^C is for the caller, and the container
    pid = clone3(0)
    if pid == 0:
        try:
            os.setsid()
            set_title("minicontainer snapshot")
            os.close(read)
            try:
                answer: dict[str, str | int] = {"value": act()}
            except EngineError as error:
                answer = {"error": str(error)}
            except OSError as error:
                answer = {"errno": error.errno or 0, "text": error.strerror or str(error)}
            os.write(write, json.dumps(answer).encode())
        finally:
            os._exit(0)
    os.close(write)
    try:
        with open(read, "rb", buffering=0) as said:
            text = said.read()
        os.waitpid(pid, 0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if not text:
        raise EngineError("the process that was to do it was killed; put it right: minicontainer system repair")
    answer = json.loads(text)
    if "error" in answer:
        raise EngineError(str(answer["error"]))
    if "errno" in answer:
        raise OSError(answer["errno"], answer["text"])
    return str(answer["value"])


# Who has hold of the old root


def _in_the_way(pid: int, root: int, group: Group) -> str:
    """What of the mount number `root` is held in a group that stands still; "": nothing that pivot_root(2) leaves.

    Raises OSError: it cannot be seen.
    """
    if why := _other_mounts(pid, root):
        return why
    mounts, top = os.readlink(f"/proc/{pid}/ns/mnt"), os.stat(f"/proc/{pid}/root")
    for other in _processes(group):
        where = f"/proc/{other}"
        if os.readlink(f"{where}/ns/mnt") != mounts:
            return f"process {other} has mounts of its own"
        for task in os.listdir(f"{where}/task"):
            for name in ("root", "cwd"):
                place = f"{where}/task/{task}/{name}"
                if _mount_number(place) == root and not os.path.samestat(os.stat(place), top):
                    return f"process {other} is in a directory ({os.readlink(place)})"
            if why := _open_files(f"{where}/task/{task}", root):
                return f"process {other} has {why}"
        if why := _shared_mapping(where, root):
            return f"process {other} has {why}"
    return ""


def _processes(group: Group) -> list[int]:
    """All in the group and in those below it."""
    found = []
    for directory, _, _ in os.walk(group["freezer"][1]):
        found += [int(line) for line in files.read(f"{directory}/cgroup.procs").split()]
    return found


def _other_mounts(pid: int, root: int) -> str:
    """What is mounted that shows files of the root elsewhere, or makes the root more than a mount like any other."""
    lines = [line.split() for line in files.read(f"/proc/{pid}/mountinfo").splitlines()]
    own = next(line for line in lines if int(line[0]) == root)
    if own[6] != "-" or set(own[5].split(",")) - {"rw", "relatime"}:
        return "its root is mounted in a way of its own"
    for line in lines:
        kind, source = line[line.index("-") + 1 :][:2]
        if line is not own and (line[2] == own[2] or kind == "overlay" or source.startswith("/dev/loop")):
            return f"something of its root is mounted at {line[4]}"
    return ""


def _open_files(task: str, root: int) -> str:
    """What a thread has open of the root, or by which it could get at it or is told of it."""
    for fd in os.listdir(f"{task}/fd"):
        target, about = os.readlink(f"{task}/fd/{fd}"), files.read(f"{task}/fdinfo/{fd}")
        if f"mnt_id:\t{root}\n" in about:
            return f"a file open ({target})"
        if target.startswith("mnt:["):
            return "a mount namespace open"
        if any(line.startswith(("inotify ", "fanotify ")) for line in about.splitlines()):
            return "an eye on files (inotify)"
        if target.startswith("socket:[") and (path := _bound(task, target[8:-1])):
            with contextlib.suppress(FileNotFoundError):
                if not path.startswith("/") or _mount_number(f"{task}/root{path}") == root:
                    return f"a socket bound ({path})"
    return ""


def _bound(task: str, inode: str) -> str:
    """The path of a Unix socket; "": it has none, or is of another kind. proc_pid_net(5)."""
    for line in files.read(f"{task}/net/unix").splitlines():
        words = line.split(maxsplit=7)
        if len(words) == 8 and words[6] == inode and not words[7].startswith("@"):
            return words[7]
    return ""


def _shared_mapping(process: str, root: int) -> str:
    """A file that a process has mapped and sees the changes of: shared. What is private is its own, or a program's."""
    for line in files.read(f"{process}/maps").splitlines():
        addresses, how, *_, name = line.split(maxsplit=5) if line.count("/") else (*line.split()[:2], "")
        if how[3] == "s" and name:
            begin, end = (int(address, 16) for address in addresses.split("-"))
            if _mount_number(f"{process}/map_files/{begin:x}-{end:x}") == root:
                return f"a file mapped ({name})"
    return ""


def _mount_number(path: str) -> int:
    """The number of the mount that a path leads to: "mnt_id" in fdinfo, proc_pid_fdinfo(5). Raises OSError."""
    with _held(path) as fd:
        for line in files.read(f"/proc/self/fdinfo/{fd}").splitlines():
            if line.startswith("mnt_id:"):
                return int(line.split()[1])
    raise ValueError(path)


@contextlib.contextmanager
def _held(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
