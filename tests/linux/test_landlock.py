"""`linux/landlock.py`: the constants and structures, as this kernel takes and refuses them."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from pathlib import Path

import pytest

from minicontainer.linux import landlock
from minicontainer.linux.landlock import (
    FILE_RIGHTS,
    LANDLOCK_RULE_PATH_BENEATH,
    LandlockNetPortAttr,
    LandlockPathBeneathAttr,
    LandlockRulesetAttr,
    handled_fs,
    landlock_abi,
    landlock_add_rule,
    landlock_create_ruleset,
)

HEADER = Path("/usr/include/linux/landlock.h")
FS = {name: value for name, value in vars(landlock).items() if name.startswith("LANDLOCK_ACCESS_FS_")}
NEWEST = 7
"""The newest ABI that is known here; later ones may have rights that we leave alone."""


def error_of_rule(path: str, rights: int) -> int:
    ruleset = landlock_create_ruleset(LandlockRulesetAttr(handled_fs(landlock_abi()), 0, 0))
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        landlock_add_rule(ruleset, LANDLOCK_RULE_PATH_BENEATH, LandlockPathBeneathAttr(rights, place))
    except OSError as error:
        return error.errno or -1
    finally:
        os.close(place)
        os.close(ruleset)
    return 0


def test_the_constants_are_the_headers() -> None:
    found = dict(re.findall(r"#define (LANDLOCK_ACCESS_FS_\w+)\s+\(1ULL << (\d+)\)", HEADER.read_text()))
    assert len(found) >= 14
    assert {name: 1 << int(bit) for name, bit in found.items() if name in FS}.items() <= FS.items()


def test_the_structures_have_their_sizes() -> None:
    sizes = [ctypes.sizeof(one) for one in (LandlockRulesetAttr, LandlockPathBeneathAttr, LandlockNetPortAttr)]
    assert sizes == [24, 12, 16]


def test_each_abi_has_what_the_one_before_had() -> None:
    handled = [handled_fs(abi) for abi in range(1, NEWEST + 1)]
    assert [mask.bit_length() for mask in handled] == [13, 14, 15, 15, 16, 16, 16]
    assert all(mask == (1 << mask.bit_length()) - 1 for mask in handled)


def test_the_kernel_handles_what_its_abi_is_said_to() -> None:
    abi = landlock_abi()
    os.close(landlock_create_ruleset(LandlockRulesetAttr(handled_fs(abi), 0, 0)))
    if abi <= NEWEST:
        with pytest.raises(OSError) as caught:
            landlock_create_ruleset(LandlockRulesetAttr(1 << handled_fs(abi).bit_length(), 0, 0))
        assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("name", FS)
def test_which_rights_there_are_over_a_file(name: str) -> None:
    if FS[name] & handled_fs(landlock_abi()):
        assert error_of_rule("/", FS[name]) == 0
        assert error_of_rule("/dev/null", FS[name]) == (0 if FS[name] & FILE_RIGHTS else errno.EINVAL)
    else:
        assert error_of_rule("/", FS[name]) == errno.EINVAL


def test_a_rule_that_allows_nothing() -> None:
    assert error_of_rule("/", 0) == errno.ENOMSG
