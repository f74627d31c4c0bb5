"""A class with everybody in it: whoever wants to break the autograder, or fool it, and people who only want a grade.

The attacks are the files of ``hostile/``. Each says in its first lines what it tries, and why that fails, and after
them what the grades must say: `points` (0 where nothing is said), `status`, and what the feedback `says`. What cannot
lie in a checkout, a broken file, a pipe, a name with a line feed in it, is made here. All are graded in *one* run, by a
command that was called *in* their directory. Then each row is looked at by itself.
"""

from __future__ import annotations

import contextlib
import csv
import ctypes
import json
import os
import platform
import re
import secrets
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from labs.grading.feedback import file_name
from tests.command import needs_root
from tests.grading.conftest import RIGHT, exercise, notebook
from tests.host_state import OurPlaces, difference_that_stays, look

pytestmark = needs_root

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
MUTANT = CHECKOUT / "labs/course/03_uts/mutants/domain_forgotten.py"

DEADLINE = 3  # s, for one request: honest ones take 10 ms
WHOLE = 150  # s, for the class; it takes a third of that on two idle cores
SECRET = secrets.token_hex(8)
ADD_KEY, KEYCTL = {"x86_64": (248, 250), "aarch64": (217, 219)}.get(platform.machine(), (0, 0))
TRACE = "the adversary was here"


@dataclass(frozen=True)
class Expected:
    """What the grades must say of an entry."""

    points: frozenset[int] = frozenset({0})
    status: str = "graded"
    """A regular expression; so is `says`, of which the reason or a diagnosis must have a match."""
    says: str = ""

    @classmethod
    def read(cls, attack: Path) -> Expected:
        """From the first lines of a file."""
        head = attack.read_text(encoding="utf-8").partition("\n\n")[0]
        told = dict(re.findall(r"^# (\w+): (.*(?:\n#   .*)*)$", head, re.MULTILINE))
        assert {"attack", "fails", "status"} <= told.keys(), (
            f"{attack.name} does not say what it tries and why it fails"
        )
        points = frozenset(int(number) for number in told.get("points", "0").split("|"))
        return cls(points, told["status"], told.get("says", ""))


ATTACKS = {path.name: path for path in sorted((HERE / "hostile").glob("*.py"))}

FULL = Expected(frozenset({10}), says="6 of 6 checks passed")


def unreadable(says: str) -> Expected:
    """An entry from which nothing can be read."""
    return Expected(status="unreadable", says=says)


def empty(says: str) -> Expected:
    """An entry with no answer in it."""
    return Expected(status="empty", says=says)


@dataclass(frozen=True)
class Made:
    """An entry that is made for the occasion: by writing this, or by calling it with the path."""

    content: bytes | str | Callable[[Path], Any]
    expected: Expected


def _directory(**files: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        for name, text in files.items():
            (path / name.replace("_dot_", ".")).write_text(text)

    return make


def _sparse(size: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.touch()
        os.truncate(path, size)

    return make


def _many(path: Path) -> None:
    path.mkdir()
    for number in range(300):
        _sparse(4 << 20)(path / f"{number}.py")


def _pipe_inside(path: Path) -> None:
    path.mkdir()
    os.mkfifo(path / "03.ipynb")


def _link_inside(path: Path) -> None:
    path.mkdir()
    (path / "03.ipynb").symlink_to("../alice.ipynb")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))


def _outside(path: Path) -> Path:
    """A right answer beside the directory of submissions."""
    answer = path.parent.parent / "answer.py"
    answer.write_text(exercise(RIGHT))
    return answer


WRONG_TYPES = json.dumps({"cells": [{"cell_type": "code", "source": 7}, None, [], "%%exercise uts.set_names"]})
CELL = f"%%exercise uts.set_names\n{RIGHT}"
TAKES_OVER = f"raise SystemExit('{TRACE}')\n"

NO_FUNCTION = Made(exercise("set_names = 1"), Expected(says="does not define a function"))

MADE = {
    # Honest ones. Other editors drop all metadata; the text of the cells is what counts.
    "alice.ipynb": Made(notebook("import os", f"%%exercise uts.set_names\n# {SECRET}\n{RIGHT}"), FULL),
    "bob": Made(_directory(uts_dot_ipynb=notebook(CELL), notes_dot_txt="x"), FULL),
    "carol.py": Made(exercise(RIGHT), FULL),
    "dave.py": Made(MUTANT.read_bytes(), Expected(frozenset({9}), says="5 of 6 checks passed")),
    "zoe.ipynb": Made(notebook(CELL), FULL),
    # They are graded while their neighbour uses up whatever it can.
    **{f"{neighbour}_{number}.py": Made(exercise(RIGHT), FULL)
       for neighbour in ("fork_bomb", "namespace_flood") for number in range(8)},
    # Cells deleted, and cells there more than once.
    "deleted.ipynb": Made(notebook("import os"), empty("no cell begins with %%exercise uts.set_names")),
    "deleted-all.ipynb": Made('{"cells": []}', empty("no cell begins with")),
    "twice-right-last.ipynb": Made(
        notebook("%%exercise uts.set_names\ndef set_names(host, domain=None): return 0", CELL),
        Expected(frozenset({10}), says="uts.set_names is there 2 times: the last one counts"),
    ),
    "twice-right-first.ipynb": Made(
        notebook(CELL, "%%exercise uts.set_names\ndef set_names(host, domain=None): return 0"),
        Expected(says="uts.set_names is there 2 times: the last one counts"),
    ),
    "another-name.ipynb": Made(notebook(f"%%exercise uts.set_name\n{RIGHT}"), empty("no cell begins with")),
    # Files that are none.
    "zero.ipynb": Made(b"", unreadable("not a notebook")),
    "zero.py": Made(b"", empty("no cell begins with")),
    "cut-short.ipynb": Made(notebook(CELL)[:-40], unreadable("not a notebook")),
    "latin-1.ipynb": Made(b'{"cells": "\xfc"}', unreadable("not UTF-8")),
    "latin-1.py": Made(exercise(f"# ü\n{RIGHT}").encode("latin-1"), unreadable("not UTF-8")),
    "utf-16.ipynb": Made(notebook(CELL).encode("utf-16"), unreadable("not UTF-8")),
    "binary.py": Made(bytes(range(256)) * 64, unreadable("not UTF-8")),
    "nul.py": Made(exercise("def set_names(host, domain=None):\n    return '\0'\n"), Expected(says="the cell failed")),
    "halves.ipynb": Made(notebook(f"{CELL}\nx = '\ud800'"), Expected(says="the cell failed")),
    "wrong-types.ipynb": Made(WRONG_TYPES, unreadable("not a notebook")),
    "list.ipynb": Made("[]", unreadable("not a notebook")),
    "number.ipynb": Made("9" * 100_000, unreadable("not a notebook")),
    "deep.ipynb": Made("[" * 1_000_000, unreadable("not a notebook")),
    "deep-cells.ipynb": Made('{"cells": ' + '{"cells": ' * 300_000, unreadable("not a notebook")),
    "deep.py": Made(exercise(f"set_names = {'(' * 100_000}"), Expected(says="the cell failed")),
    "sum.py": Made(exercise(f"set_names = lambda *_: {'-' * 200_000}1"), Expected(status="graded|timeout")),
    "huge.ipynb": Made(_sparse(1 << 40), unreadable("larger than")),
    "many": Made(_many, unreadable("more than 200")),
    # Entries that are no files.
    "nothing": Made(_directory(), empty("there is no notebook")),
    "only-notes": Made(_directory(notes_dot_txt="x"), empty("there is no notebook")),
    "directory.ipynb": Made(_directory(), empty("there is no notebook")),
    "pipe.py": Made(os.mkfifo, unreadable("not a file")),
    "pipe": Made(os.mkfifo, unreadable("not a file|neither a notebook")),
    "pipe-inside": Made(_pipe_inside, unreadable("not a file")),
    "socket.ipynb": Made(_socket, unreadable("cannot be read|not a file")),
    "shadow.py": Made(lambda path: path.symlink_to("/etc/shadow"), unreadable("symbolic link")),
    "endless.py": Made(lambda path: path.symlink_to("/dev/zero"), unreadable("symbolic link")),
    "copies-alice.ipynb": Made(lambda path: path.symlink_to("alice.ipynb"), unreadable("symbolic link")),
    "copies-bob": Made(lambda path: path.symlink_to("bob"), unreadable("symbolic link")),
    "link-inside": Made(_link_inside, unreadable("symbolic link")),
    "link-out.py": Made(lambda path: path.symlink_to(_outside(path)), unreadable("symbolic link")),
    "dangling.py": Made(lambda path: path.symlink_to("nowhere"), unreadable("symbolic link")),
    "round.py": Made(lambda path: path.symlink_to("round.py"), unreadable("symbolic link")),
    "program.exe": Made(b"\x7fELF", unreadable("neither a notebook")),
    # Files that the grader's own Python, or pytest, might take for something else: it was called in this directory.
    **{
        name: Made(TAKES_OVER, empty("no cell begins with"))
        for name in ("json.py", "conftest.py", "pytest.py", "sitecustomize.py", "labs.py", "test_03_uts.py", "csv.py")
    },
    "minicontainer": Made(_directory(__init___dot_py=TAKES_OVER), empty("no cell begins with")),
    "pytest.ini": Made(f"[pytest]\naddopts = --{TRACE}\n", unreadable("neither a notebook")),
    "pyproject.toml": Made("[tool.pytest.ini_options]\naddopts = '--collect-only'\n", unreadable("neither a notebook")),
    ".hidden.py": Made(exercise(RIGHT), FULL),
    # Names.
    "line\nalice,03,10,10,graded,right.py": NO_FUNCTION,
    "quote\",'comma.py": NO_FUNCTION,
    "=cmd|' -C calc'!A0.py": NO_FUNCTION,
    "+1+1.txt": Made("", unreadable("neither a notebook")),
    "-1-1.py": NO_FUNCTION,
    "@SUM(A1).txt": Made("", unreadable("neither a notebook")),
    "\tcmd.py": NO_FUNCTION,
    "<script>alert(1)<%2Fscript>.py": NO_FUNCTION,
    "...py": NO_FUNCTION,
    "….\u202efdp.py": NO_FUNCTION,
    "\x1b]0;owned\x07.py": NO_FUNCTION,
    **{os.fsdecode(name): NO_FUNCTION for name in (b"\xff.py", b"\xfe.py")},
    f"{'ä' * 125}.py": NO_FUNCTION,
    # Several who say that they are the same.
    "erin.ipynb": Made(notebook(CELL), FULL),
    "erin.py": NO_FUNCTION,
    "erin": Made(_directory(), empty("there is no notebook")),
    "erin.py.py": NO_FUNCTION,
    "\x01.py": NO_FUNCTION,
    "\x02.py": NO_FUNCTION,
}  # fmt: skip

EXPECTED = {
    **{name: Expected.read(path) for name, path in ATTACKS.items()},
    **{name: made.expected for name, made in MADE.items()},
}


@dataclass(frozen=True)
class Class:
    """The class after it was graded."""

    done: subprocess.CompletedProcess[str]
    seconds: float
    out: Path
    rows: dict[str, dict[str, Any]]
    """results.json, by the name of the entry."""
    table: list[dict[str, str]]
    """grades.csv, in its order; that of the entries."""
    left: str
    """What is not as it was on the host."""
    disturbed: list[str]
    """What of the host was reached."""

    def page(self, entry: str) -> str:
        """The page of feedback."""
        return (self.out / f"feedback/{file_name(self.rows[entry]['student'])}.html").read_text(encoding="utf-8")


@dataclass
class Bait:
    """What stands about on the host, for attacks to find: a place where everybody may write, sockets, a process."""

    place: Path
    listening: list[socket.socket]
    victim: subprocess.Popen[bytes]

    @classmethod
    @contextlib.contextmanager
    def laid(cls) -> Iterator[Bait]:
        """Lay it, and take it away afterwards."""
        place = Path(tempfile.mkdtemp(prefix="hostile-", dir="/var/tmp"))
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(shutil.rmtree, place)
            place.chmod(0o777)
            (place / "secret").write_text(SECRET)
            listening = [
                cleanup.enter_context(socket.socket(family))
                for family in (socket.AF_INET, socket.AF_UNIX, socket.AF_UNIX)
            ]
            for end, address in zip(listening, (("127.0.0.1", 0), f"\0{place.name}", f"{place}/socket"), strict=True):
                end.bind(address)  # type: ignore[arg-type]
                end.listen()
            (place / "socket").chmod(0o777)
            victim = cleanup.enter_context(subprocess.Popen(["sleep", "600"]))
            cleanup.callback(victim.kill)
            yield cls(place, listening, victim)

    def fill_in(self, text: str, folder: Path, out: Path) -> str:
        """An attack with the places that it could not know."""
        known = {
            "marker": self.place,
            "port": self.listening[0].getsockname()[1],
            "abstract": self.place.name,
            "victim": self.victim.pid,
            "examiner": os.getpid(),
            "checkout": CHECKOUT,
            "submissions": folder,
            "out": out,
            "secret": SECRET,
            "terces": SECRET[::-1],
        }
        return re.sub(r"@(\w+)@", lambda found: str(known.get(found[1], found[0])), text)

    def disturbed(self) -> list[str]:
        """What somebody has reached."""
        found = [f"{end.getsockname()} was connected to" for end in select.select(self.listening, [], [], 0)[0]]
        if self.victim.poll() is not None:
            found.append("a process of the host was killed")
        if sorted(os.listdir(self.place)) != ["secret", "socket"]:
            found.append(f"there is something in {self.place}: {os.listdir(self.place)}")
        places = [CHECKOUT / "minicontainer", CHECKOUT / "labs", Path(json.__file__).parent]
        found += [
            str(file) for place in places for file in place.rglob("*.py") if TRACE in file.read_text(errors="replace")
        ]
        return found


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory, our_places: OurPlaces) -> Class:
    """The class, graded in one run."""
    top = tmp_path_factory.mktemp("class")
    folder, out = top / "submissions", top / "grades"
    folder.mkdir()
    out.mkdir()
    (out / "grades.csv").write_text(SECRET)  # those of last week
    with Bait.laid() as bait:
        for name, path in ATTACKS.items():
            (folder / name).write_text(bait.fill_in(path.read_text(encoding="utf-8"), folder, out), encoding="utf-8")
        for name, made in MADE.items():
            match made.content:
                case bytes() as content:
                    (folder / name).write_bytes(content)
                case str() as content:
                    (folder / name).write_text(content, encoding="utf-8")
                case make:
                    make(folder / name)
        listing = {entry.name: entry.lstat() for entry in folder.iterdir()}
        before = look(our_places)
        begin = time.monotonic()
        done = subprocess.run(
            # As the installed command, whose sys.path has not the directory in it that it is called in.
            [
                sys.executable,
                "-P",
                "-c",
                "from labs.cli import main; raise SystemExit(main())",
                "grade",
                "03",
                ".",
                "--out",
                out,
            ],
            cwd=folder,
            env={**os.environ, "LABS_DEADLINE": str(DEADLINE), "ADVERSARY": SECRET},
            preexec_fn=_with_a_key,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WHOLE,
        )
        seconds = time.monotonic() - begin
        left = difference_that_stays(before, lambda: look(our_places))
        changed = [
            name for name in listing.keys() | set(os.listdir(folder)) if _changed(listing.get(name), folder / name)
        ]
        disturbed = [*bait.disturbed(), *(f"{name!r} was changed" for name in changed)]
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))["submissions"]
    with open(out / "grades.csv", encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    rows = dict(zip(sorted(listing), results, strict=True))
    shutil.rmtree(folder)  # a thousand gibibytes, though there are only holes in them
    return Class(done, seconds, out, rows, table, left, disturbed)


def _with_a_key() -> None:
    """A session keyring with a key in it, as after a login; where the kernel has none, there is nothing to steal."""
    libc = ctypes.CDLL(None)
    libc.syscall(KEYCTL, 1, None)
    libc.syscall(ADD_KEY, b"user", b"adversary", SECRET.encode(), len(SECRET), -3)


def _changed(before: os.stat_result | None, path: Path) -> bool:
    try:
        after = path.lstat()
    except FileNotFoundError:
        return True
    return before is None or (before.st_mtime_ns, before.st_size, before.st_mode) != (
        after.st_mtime_ns,
        after.st_size,
        after.st_mode,
    )


@pytest.mark.parametrize("entry", EXPECTED, ids=lambda name: name.encode("unicode_escape", "replace").decode()[:40])
def test_each_gets_what_it_deserves(graded: Class, entry: str) -> None:
    """Its points, its status, a reason, and a page on which nothing is anybody else's markup."""
    row, expected = graded.rows[entry], EXPECTED[entry]
    told = "\n".join([row["reason"], *(check["diagnosis"] for check in row["checks"])])
    seen = f"{row['points']} points, {row['status']}, {row['reason']}\n{told}"
    assert row["points"] in expected.points, seen
    assert row["points"] == sum(check["points"] for check in row["checks"] if check["verdict"] == "pass"), seen
    assert row["max"] == 10
    assert re.fullmatch(expected.status, row["status"]), seen
    assert re.search(expected.says, told), seen
    assert row["reason"]
    page = graded.page(entry)
    assert f"{row['points']} of 10 points" in page
    assert not re.search(r"<(script|img|iframe|svg|a|link|base|form|object|embed)\b", page, re.IGNORECASE)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page), "a control character"
    assert SECRET not in page


def test_nobody_is_left_out(graded: Class) -> None:
    """A row and a page for every entry, each under a name of its own, in the table and in results.json alike."""
    students = [row["student"] for row in graded.rows.values()]
    assert graded.rows.keys() == EXPECTED.keys()
    assert len({student.casefold() for student in students}) == len(students), sorted(students)
    assert len({file_name(student) for student in students}) == len(students)
    assert len(list((graded.out / "feedback").iterdir())) == len(students)
    for row, line in zip(graded.rows.values(), graded.table, strict=True):
        assert (line["points"], line["max"], line["status"], line["lab"]) == (
            str(row["points"]),
            "10",
            row["status"],
            "03",
        )
        assert line["student"].lstrip("'") == row["student"].lstrip("'")


def test_the_table_can_be_read_by_lines_and_by_spreadsheets(graded: Class) -> None:
    """A line for each row and none that is forged; no cell that a spreadsheet takes for a formula."""
    lines = (graded.out / "grades.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(graded.rows) + 1
    assert sum(line.startswith("alice,") for line in lines) == 1
    for row in graded.table:
        assert not [cell for cell in row.values() if cell.startswith(("=", "+", "-", "@", "\t", "\r"))], row


def test_the_host_is_as_it_was(graded: Class) -> None:
    """No process, mount, control group or file is left, and what stood about on the host was not touched."""
    assert not graded.left, graded.left
    assert not graded.disturbed
    assert TRACE not in graded.done.stdout + graded.done.stderr
    assert SECRET not in (graded.out / "results.json").read_text() + (graded.out / "grades.csv").read_text()
    assert not re.search("[\x00-\x09\x0b-\x1f]", graded.done.stdout + graded.done.stderr)


def test_the_class_is_graded_in_its_time(graded: Class) -> None:
    """Those who loop cost a deadline each, and no more."""
    assert graded.seconds < WHOLE / 2, f"{graded.seconds:.1f} s"
