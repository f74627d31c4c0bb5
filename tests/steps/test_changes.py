"""What a container has changed, read from layers: against overlayfs itself, which shows what is there before and after."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from minicontainer.steps import Steps
from tests.command import needs_root
from tests.steps.apart import apart, tmpfs

pytestmark = needs_root

BELOW = "mkdir -p kept dir/inner gone/deep again; echo 1 >kept/file; echo 2 >dir/inner/two; echo 3 >gone/deep/x; echo 4 >again/old; echo 5 >again/both; echo 6 >file; ln -s file link; mkdir turned; echo 7 >turned/x"
CASES = {
    "nothing": ("true", []),
    "added": ("mkdir new; echo x >new/file; ln -s / new/link", ["A /new", "A /new/file", "A /new/link"]),
    "changed": ("echo more >>dir/inner/two", ["C /dir", "C /dir/inner", "C /dir/inner/two"]),
    "deleted": ("rm file; rm -r gone", ["D /file", "D /gone"]),
    "a whole directory anew": (
        "rm -r again; mkdir again; echo n >again/new; echo b >again/both",
        ["C /again", "C /again/both", "A /again/new", "D /again/old"],
    ),
    "a mode": ("chmod 700 kept", ["C /kept"]),
    "a directory for a file": ("rm file; mkdir file; echo >file/in", ["C /file", "A /file/in"]),
    "a file for a directory": ("rm -r turned; echo now >turned", ["C /turned"]),
    "come and gone": ("echo x >brief; rm brief", []),
    "only read": ("cat kept/file >/dev/null; ls -lR . >/dev/null", []),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("layers", (1, 2))
def test_each_change_is_told(tmp_path: Path, name: str, layers: int) -> None:
    """Written at once, or in two layers of which the second undoes what was made in between."""
    script, expected = CASES[name]

    def look() -> list[str]:
        top = tmpfs(tmp_path / "layers")
        for one in ("below", "first", "second", "work", "merged"):
            (top / one).mkdir()
        _shell(BELOW, top / "below")
        steps, over = Steps(), [str(top / "first")]
        if layers == 2:
            _written(top, [str(top / "below")], "first", "mkdir between; echo x >between/x; echo y >dir/between")
            over.insert(0, str(top / "second"))
            script_ = f"rm -r between dir/between; {script}"
        else:
            script_ = script
        _written(top, [*over[1:], str(top / "below")], Path(over[0]).name, script_)
        return [f"{kind} {path}" for kind, path in steps.changes(over, [str(top / "below")])]

    found = apart(look)
    if layers == 2:  # the directory in which something has come and gone has another time than before
        found = [line for line in found if line != "C /dir" or "C /dir" in expected]
    assert found == expected


def test_names_that_lead_elsewhere_are_not_followed(tmp_path: Path) -> None:
    def look() -> list[tuple[str, str]]:
        top = tmpfs(tmp_path / "layers")
        (top / "below").mkdir()
        (top / "upper").mkdir()
        (top / "below/etc").mkdir()
        os.symlink("/etc", top / "upper/etc")
        return [*Steps().changes([str(top / "upper")], [str(top / "below")])]

    assert apart(look) == [("C", "/etc")]


def _written(top: Path, lowers: list[str], upper: str, script: str) -> None:
    """What a container writes that runs this."""
    Steps().stack(lowers, str(top / upper), str(top / "work"), str(top / "merged"))
    _shell(script, top / "merged")
    subprocess.run(["umount", top / "merged"], check=True)
    subprocess.run(["rm", "-rf", top / "work/work"], check=True)


def _shell(script: str, directory: Path) -> None:
    subprocess.run(["sh", "-euc", script], cwd=directory, check=True)
