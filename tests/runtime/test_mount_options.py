"""The words of a mount's options, and what they mean."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minicontainer import linux
from minicontainer.linux import (
    MOUNT_ATTR__ATIME,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
    MS_BIND,
    MS_NOATIME,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_RELATIME,
    MS_REMOUNT,
    MS_SHARED,
    MS_SLAVE,
    MS_STRICTATIME,
    MS_UNBINDABLE,
)
from minicontainer.runtime.mount_options import KNOWN, MountOptions, parse_options

SPECIFICATION = """
async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime noexec
noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime relatime
remount rexec rnoatime rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw
rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync
tmpcopyup unbindable idmap ridmap rnodev
""".split()
"""The table "Linux mount options" of the OCI runtime specification 1.2; it forgot rnodev."""


def test_every_option_of_the_specification_is_known_and_no_data() -> None:
    assert sorted(KNOWN) == sorted(SPECIFICATION)
    assert parse_options(SPECIFICATION).data == ""


@pytest.mark.parametrize("word", sorted(set(SPECIFICATION) - {"defaults"}))
def test_every_option_says_something(word: str) -> None:
    assert parse_options([word]) != MountOptions()


@pytest.mark.parametrize(
    ("words", "flags", "cleared"),
    [
        ("", 0, 0),
        ("defaults", 0, 0),
        ("ro nosuid nodev noexec", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, 0),
        ("rbind rw", MS_BIND | MS_REC, MS_RDONLY),
        ("ro rw", 0, MS_RDONLY),
        ("rw ro", MS_RDONLY, 0),
        ("bind remount nosuid suid dev exec", MS_BIND | MS_REMOUNT, MS_NOSUID | MS_NODEV | MS_NOEXEC),
        ("noatime relatime", MS_RELATIME, 0),
        ("relatime strictatime noatime", MS_NOATIME, 0),
        ("strictatime nostrictatime", 0, MS_STRICTATIME),
        ("noatime atime", 0, MS_NOATIME),
    ],
)
def test_flags(words: str, flags: int, cleared: int) -> None:
    options = parse_options(words.split())
    assert (options.flags, options.cleared) == (flags, cleared)


@pytest.mark.parametrize(
    ("words", "below"),
    [
        ("rro", (MOUNT_ATTR_RDONLY, 0)),
        ("rro rrw", (0, MOUNT_ATTR_RDONLY)),
        ("rrw rro rnodev", (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV, 0)),
        ("rnoatime", (MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME)),
        ("rnoatime rstrictatime", (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME)),
        ("rstrictatime rrelatime", (0, MOUNT_ATTR__ATIME)),
        ("ratime", (0, MOUNT_ATTR__ATIME)),
        ("rnorelatime", (0, MOUNT_ATTR__ATIME)),
    ],
)
def test_for_all_mounts_below(words: str, below: tuple[int, int]) -> None:
    assert parse_options(words.split()).below == below
    assert parse_options(words.split()).flags == 0


def test_propagation_in_its_order() -> None:
    assert parse_options(["rslave", "ro", "shared"]).propagation == (MS_SLAVE | MS_REC, MS_SHARED)
    assert parse_options(["private", "runbindable"]).propagation == (MS_PRIVATE, MS_UNBINDABLE | MS_REC)


def test_what_is_ours_alone() -> None:
    options = parse_options(["tmpcopyup", "idmap"])
    assert options.copy_up and options.idmap and not options.idmap_below
    options = parse_options(["rbind", "ridmap"])
    assert options.bind and options.idmap and options.idmap_below and not options.copy_up


def test_the_rest_is_the_file_systems() -> None:
    assert parse_options(["mode=755", "ro", "size=64k", ""]).data == "mode=755,size=64k"


@given(st.lists(st.one_of(st.sampled_from(SPECIFICATION), st.text(max_size=5)), max_size=12))
@example(["ro", "RO", "ro ", "ro,nosuid"])
def test_whatever_the_list(words: list[str]) -> None:
    """Every word means something or is data, nothing is both set and cleared, and a list twice means what it means once."""
    options = parse_options(words)
    assert not options.flags & options.cleared
    assert not options.below[0] & options.below[1] & ~MOUNT_ATTR__ATIME
    assert options.data == ",".join(word for word in words if word and word not in SPECIFICATION)
    again = parse_options(words + words)
    assert (again.flags, again.cleared, again.below) == (options.flags, options.cleared, options.below)


def test_the_constants_are_the_kernels() -> None:
    """include/uapi/linux/mount.h"""
    told = {
        "MS_NOSYMFOLLOW": 256, "MS_NOATIME": 1024, "MS_NODIRATIME": 2048, "MS_SILENT": 32768, "MS_I_VERSION": 1 << 23,
        "MS_STRICTATIME": 1 << 24, "MS_LAZYTIME": 1 << 25, "MS_SYNCHRONOUS": 16, "MS_MANDLOCK": 64, "MS_DIRSYNC": 128,
        "MOUNT_ATTR_NODIRATIME": 0x80, "MOUNT_ATTR_IDMAP": 0x00100000, "MOUNT_ATTR_NOSYMFOLLOW": 0x00200000,
    }  # fmt: skip
    assert {name: getattr(linux, name) for name in told} == told
