"""`runtime/users.py`: which ids a rootless container has, from /etc/subuid and /etc/subgid."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minicontainer.runtime import users
from minicontainer.runtime.users import subordinate_ids

ROOT = pwd.getpwuid(0).pw_name


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file such as /etc/subuid."""
    return tmp_path / "subuid"


def test_by_name_and_by_number(file: Path) -> None:
    file.write_text(f"{ROOT}:100000:65536\nsomebody:200000:65536\n0:300000:10\n61234:400000:5\n")
    assert subordinate_ids(str(file), 0) == [(100000, 65536), (300000, 10)]
    assert subordinate_ids(str(file), 61234) == [(400000, 5)]  # who has no entry in /etc/passwd
    assert subordinate_ids(str(file), 61235) == []


def test_no_file_grants_nothing(file: Path) -> None:
    assert subordinate_ids(str(file), 0) == []


@pytest.mark.parametrize(
    "line",
    ["", "#", f"# {ROOT}:1:1", ROOT, f"{ROOT}:1", f"{ROOT}:1:2:3", f"{ROOT}:a:b", f"{ROOT}::", f"{ROOT}:-1:5", f"{ROOT}:5:0",
     f"{ROOT}:1.5:3", ":1:1", "\udcff:1:1"],
)  # fmt: skip
def test_a_line_that_is_none_is_passed_over(file: Path, line: str) -> None:
    file.write_bytes(os.fsencode(f"{line}\n{ROOT}:100000:65536\n"))
    assert subordinate_ids(str(file), 0) == [(100000, 65536)]


@given(st.text() | st.binary().map(os.fsdecode))
@example(f"{ROOT}:٣:٤\n")
def test_whatever_is_in_it(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.mktemp("s") / "subuid"
    file.write_bytes(text.encode("utf-8", "surrogateescape") if _encodable(text) else text.encode("utf-8", "replace"))
    for first, count in subordinate_ids(str(file), 0):
        assert first >= 0 and count > 0


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def test_ids_inside_have_no_gaps_and_root_is_the_caller(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = {"/etc/subuid": [(100000, 10), (5000, 3)], "/etc/subgid": [(200000, 4)]}
    monkeypatch.setattr(users, "subordinate_ids", lambda name, uid: ranges[name])
    monkeypatch.setattr(users.shutil, "which", lambda name, *rest: f"/usr/bin/{name}")
    uids, gids = users.rootless_maps()
    assert list(uids) == [(0, os.geteuid(), 1), (1, 100000, 10), (11, 5000, 3)]
    assert list(gids) == [(0, os.getegid(), 1), (1, 200000, 4)]
    assert users.rootless_maps(alone=True) == ([(0, os.geteuid(), 1)], [(0, os.getegid(), 1)])


@pytest.mark.parametrize("missing", ["/etc/subuid", "/etc/subgid", "newuidmap", "newgidmap"])
def test_without_both_ranges_and_both_programs_root_is_alone(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr(users, "subordinate_ids", lambda name, uid: [] if name == missing else [(100000, 10)])
    monkeypatch.setattr(users.shutil, "which", lambda name, *rest: None if name == missing else f"/usr/bin/{name}")
    assert users.rootless_maps() == ([(0, os.geteuid(), 1)], [(0, os.getegid(), 1)])
