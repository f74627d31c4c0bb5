"""`linux/capabilities.py` against /proc/PID/status, capsh(1) and the kernel's own refusals."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.linux.capabilities import (
    NAMES,
    Capabilities,
    cap_ambient_clear_all,
    cap_ambient_raise,
    capbset_drop,
    capbset_read,
    capget,
    capset,
    grantable,
    known,
    mask_of,
    names_of,
)
from tests.command import needs_root
from tests.steps.apart import apart

LAST = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
BARE = NAMES[: LAST + 1]
CHOWN, KILL = NAMES.index("CHOWN"), NAMES.index("KILL")


def status(pid: int | str = "self") -> dict[str, int]:
    """The five sets as /proc/PID/status has them: "Inh", "Prm", "Eff", "Bnd", "Amb"."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line[3:6]: int(line[8:].strip(), 16) for line in lines if line.startswith("Cap")}


def test_what_this_kernel_knows() -> None:
    assert len(known()) == min(LAST + 1, len(NAMES))
    assert known() == [f"CAP_{name}" for name in BARE]


def test_names_and_numbers_are_those_of_libcap() -> None:
    decoded = subprocess.run(
        ["capsh", f"--decode={(1 << len(BARE)) - 1:x}"], capture_output=True, text=True, check=True
    ).stdout
    assert decoded.strip().partition("=")[2].upper().split(",") == known()


def test_capget_is_what_proc_says() -> None:
    sets, said = capget(), status()
    assert (sets.effective, sets.permitted, sets.inheritable) == (said["Eff"], said["Prm"], said["Inh"])
    assert [capbset_read(number) for number in range(LAST + 1)] == [
        bool(said["Bnd"] >> number & 1) for number in range(LAST + 1)
    ]


@given(st.sets(st.sampled_from(NAMES)), st.booleans())
def test_masks_and_names(names: set[str], prefixed: bool) -> None:
    mask = mask_of({f"CAP_{name}" if prefixed else name for name in names})
    assert {name.removeprefix("CAP_") for name in names_of(mask)} == names
    assert all(("CAP_" + name in Capabilities(mask, 0, 0)) == (name in names) for name in NAMES)


@pytest.mark.parametrize("name", ["", "CAP_", "CAP_NONSENSE", "cap_chown", "CAP_CAP_CHOWN", "ALL", "CHOWN "])
def test_what_is_no_name_has_no_bit(name: str) -> None:
    assert mask_of([name]) == 0
    assert grantable([name]) == []


def test_grantable_is_what_the_bounding_set_has() -> None:
    assert mask_of(grantable([f"CAP_{name}" for name in NAMES])) == status()["Bnd"]


@needs_root
def test_what_is_dropped_is_not_grantable() -> None:
    def act() -> tuple[list[str], int]:
        capbset_drop(CHOWN)
        return grantable(["CAP_CHOWN", "CAP_KILL"]), status()["Bnd"]

    left, bounding = apart(act)
    assert left == ["CAP_KILL"]
    assert bounding == status()["Bnd"] & ~(1 << CHOWN)


@needs_root
def test_ambient_takes_permitted_and_inheritable() -> None:
    def act() -> list[int]:
        said = list[int]()
        capset(Capabilities(1 << KILL, 1 << KILL | 1 << CHOWN, 1 << KILL))
        for number in (KILL, CHOWN, LAST + 1):
            try:
                cap_ambient_raise(number)
                said.append(0)
            except OSError as error:
                said.append(error.errno or -1)
        said.append(status()["Amb"])
        cap_ambient_clear_all()
        return [*said, status()["Amb"]]

    assert apart(act) == [0, errno.EPERM, errno.EINVAL, 1 << KILL, 0]


@needs_root
def test_another_process() -> None:
    pid = os.getpid()
    assert apart(lambda: capget(pid)) == capget()
