"""vm/provision.sh: what it refuses, and that what is done is not done again.

That a second --lab changes nothing is seen where it may change a machine: `make test-vm`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.command import DEADLINE, needs_root

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "vm" / "provision.sh"


def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(SCRIPT), *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        **options,
    )  # type: ignore[call-overload,no-any-return]


def test_what_it_does_not_know_it_does_not_do() -> None:
    done = run("--all")
    assert done.returncode == 2 and "usage: " in done.stderr and "--cgroup v1|v2" in done.stderr


def in_a_root_with(systemd: int, tmp_path: Path, *scripts: str) -> str:
    """Run scripts where /etc/default is another one, update-grub writes down that it was called, and systemd is that old."""
    programs = {"update-grub": "echo updated", "systemctl": f"echo 'systemd {systemd} (x)'"}
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    inside = "; ".join(["mount -t tmpfs tmpfs /etc/default", f"export PATH={tmp_path}:$PATH", *scripts])
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", inside], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=DEADLINE,
    )  # fmt: skip
    return done.stdout


@needs_root
def test_control_groups_of_another_version_are_a_word_on_the_kernel_s_command_line(tmp_path: Path) -> None:
    cat = "cat /etc/default/grub.d/*"
    said = in_a_root_with(252, tmp_path, f"sh {SCRIPT} --cgroup v1", f"sh {SCRIPT} --cgroup v1", cat)
    assert said.count("updated") == 1  # and not a second time
    assert said.count("control groups are v1 from the next boot on") == 1
    assert "systemd.unified_cgroup_hierarchy=0" in said
    said = in_a_root_with(252, tmp_path, f"sh {SCRIPT} --cgroup v1", f"sh {SCRIPT} --cgroup v2", cat)
    assert said.count("updated") == 2 and "unified_cgroup_hierarchy" not in said


@needs_root
def test_v1_is_refused_where_systemd_would_not_boot_and_nothing_is_written(tmp_path: Path) -> None:
    said = in_a_root_with(257, tmp_path, f"sh {SCRIPT} --cgroup v1", "find /etc/default -type f")
    assert said == "provision.sh: this machine's systemd, 257, does not boot on cgroup v1 any more; Debian 12's does\n"
    assert in_a_root_with(257, tmp_path, f"sh {SCRIPT} --cgroup v3") == "provision.sh: --cgroup v3: it is v1 or v2\n"
