"""The options that say what a container may do: understood, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import Command, needs_root, one_line

pytestmark = needs_root

STATUS = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; id"


def shown(minicontainer: Command, *options: str, script: str = STATUS) -> list[str]:
    """What a script in a container says."""
    done = minicontainer("run", "--rm", *options, "busybox", "sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("options", "capabilities", "no_new_privileges", "filter"),
    [
        ([], "00000000a80425fb", "1", "2"),
        (["--cap-drop", "all"], "0000000000000000", "1", "2"),
        (["--cap-drop=ALL", "--cap-add=cap_net_bind_service"], "0000000000000400", "1", "2"),
        (["--cap-drop", "CAP_KILL", "--cap-drop", "mknod"], "00000000a00425db", "1", "2"),
        (["--security-opt", "no-new-privileges=false"], "00000000a80425fb", "0", "2"),
        (["--security-opt", "no-new-privileges", "--privileged"], None, "1", "0"),
        (["--security-opt", "no-new-privileges:true"], "00000000a80425fb", "1", "2"),
        (["--security-opt", "seccomp=unconfined"], "00000000a80425fb", "1", "0"),
        (["--privileged"], None, "0", "0"),
    ],
)
def test_options(
    minicontainer: Command, options: list[str], capabilities: str | None, no_new_privileges: str, filter: str
) -> None:
    words = shown(minicontainer, *options)
    assert words[3::2][:2] == [no_new_privileges, filter]
    if capabilities:
        assert words[1] == capabilities
    else:
        assert int(words[1], 16) & 1 << 21, "CAP_SYS_ADMIN"


def test_who_it_is(minicontainer: Command) -> None:
    assert shown(minicontainer, "-u", "1000", script="id") == ["uid=1000", "gid=0(root)"]
    words = shown(minicontainer, "--user", "1000:100", "--group-add", "7", "--group-add", "8", script="id")
    assert (words[0], words[1].partition("(")[0], words[2]) == ("uid=1000", "gid=100", "groups=7,8")


def test_limits_and_settings(minicontainer: Command) -> None:
    script = "ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_forward"
    options = ["--ulimit", "nofile=64:128", "--ulimit", "core=0", "--oom-score-adj", "7"]
    assert shown(minicontainer, *options, "--sysctl", "net.ipv4.ip_forward=1", script=script) == "64 128 0 7 1".split()
    done = minicontainer("run", "--rm", "--read-only", "busybox", "touch", "/x")
    assert done.returncode == 1 and "Read-only" in done.stderr


def test_rules_for_files_from_several_options(minicontainer: Command) -> None:
    options = ["--security-opt", "landlock=/bin:read+execute,/tmp:read", "--security-opt", "landlock=/root:read+write"]
    words = shown(
        minicontainer, *options, script="echo yes >/root/a; cat /root/a; { echo no >/tmp/b; } 2>/dev/null; ls /tmp"
    )
    assert words == ["yes"]


def test_a_profile_from_a_file(minicontainer: Command, tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    calls = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]
    file.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls}))
    created = minicontainer(
        "create", "--name", "alpha", "--security-opt", f"seccomp={file}", "busybox", "mkdir", "/m"
    )  # fmt: skip
    assert created.returncode == 0
    file.unlink()  # it was read when the container was made
    done = minicontainer("start", "-a", "alpha")
    assert done.returncode == 1 and "No space left" in done.stderr
    minicontainer("rm", "alpha")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--cap-add", "FOO"], "FOO"),
        (["--cap-drop", ""], "no capability"),
        (["--user", "bob"], "no user"),
        (["--user", "1:"], "numbers"),
        (["--user", "1:2:3"], "numbers"),
        (["--user", "99999999999"], "no user or group"),
        (["--group-add", "wheel"], "whole number"),
        (["--group-add", "-1"], "no user or group"),
        (["--ulimit", "nofile"], "NAME=SOFT"),
        (["--ulimit", "=3"], "NAME=SOFT"),
        (["--ulimit", "nofile=x"], "NAME=SOFT"),
        (["--ulimit", "nofile=3:2"], "above the hard one"),
        (["--ulimit", "files=3"], 'no limit "files"'),
        (["--oom-score-adj", "1001"], "1000"),
        (["--oom-score-adj", "much"], "whole number"),
        (["--sysctl", "net.ipv4.ip_forward"], "NAME=VALUE"),
        (["--sysctl", "kernel.core_pattern=x"], "no namespace"),
        (["--sysctl", "net.ipv4.nonsense=1"], "nonsense"),
        (["--network", "host", "--sysctl", "net.ipv4.ip_forward=1"], "network namespace|net namespace"),
        (["--security-opt", "seccomp"], "security option"),
        (["--security-opt", "seccomp="], "security option"),
        (["--security-opt", "no-new-privileges=perhaps"], "security option"),
        (["--security-opt", "label=disable"], "security option"),
        (["--security-opt", "landlock=/tmp"], "PATH:RIGHT"),
        (["--security-opt", "landlock=/tmp:"], "PATH:RIGHT"),
        (["--security-opt", "landlock=tmp:read"], "absolute"),
        (["--security-opt", "landlock=/tmp:read+sing"], '"sing" is no right'),
        (["--security-opt", "landlock=/:read+execute,/nowhere:read"], "/nowhere: No such file"),
        (["--security-opt", "seccomp=/nowhere"], "/nowhere"),
        (["--security-opt", "seccomp=/etc"], "/etc"),
        (["--security-opt", "seccomp=/etc/passwd"], "JSON"),
    ],
)
def test_bad_options_are_refused_in_one_line(minicontainer: Command, options: list[str], told: str) -> None:
    done = minicontainer("run", "--rm", *options, "busybox", "true")
    assert done.returncode == 125
    said = one_line(done.stderr)
    assert any(word in said for word in told.split("|")), said
    assert minicontainer.containers() == []
