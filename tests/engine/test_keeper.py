"""Containers that are restarted by policy and checked for their health, and the keeper that does it while it is needed."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer.engine import health, restarting
from minicontainer.engine.restarting import Past
from minicontainer.engine.store import Check, Config, State
from tests.command import Command, end, needs_root, one_line, wait_until

pytestmark = needs_root


@pytest.fixture
def command(minicontainer: Command) -> Iterator[Command]:
    """The command; in the end no container is left, and no keeper."""
    yield minicontainer
    for container in json.loads(minicontainer("ps", "-a", "--json").stdout or "[]"):
        minicontainer("rm", "-f", container["ID"])
    wait_until(lambda: keeper_of(minicontainer) is None, "the keeper ends with the last of them")


def keeper_of(command: Command) -> int | None:
    """The pid of who holds the keeper's lock: /proc/locks has it by the file's inode."""
    lock = command.root / "keeper.lock"
    if not lock.exists():
        return None
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[-3].endswith(f":{lock.stat().st_ino}") and words[3] == "WRITE":
            pid = int(words[4])
            try:
                title = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            if b"keeper" in title:
                return pid
    return None


def a_keeper(command: Command) -> int:
    """Wait for it."""
    return int(wait_until(lambda: keeper_of(command), "there is a keeper"))


def shown(command: Command, name: str) -> dict[str, Any]:
    """What inspect says."""
    [found] = json.loads(command("inspect", name).stdout)
    return dict(found)


def times(command: Command, name: str) -> list[float]:
    """When each line of its log was written."""
    lines = command("logs", "-t", name).stdout.splitlines()
    return [datetime.datetime.fromisoformat(line.split()[0]).timestamp() for line in lines]


def at_restart(command: Command, name: str, number: int) -> None:
    """Wait until it has been restarted so often."""
    wait_until(lambda: shown(command, name)["RestartCount"] >= number, f"{name} is restarted {number} times")


def program_of(command: Command, name: str) -> int:
    """The pid of its program, which is not process 1."""
    [program] = [int(one["Pid"]) for one in json.loads(command("top", name, "--json").stdout) if one["Inside"] != 1]
    return program


ENDED = State("exited", exit_code=1, began=100.0, finished=101.0)


@pytest.mark.parametrize(
    ("policy", "code", "count", "restarts"),
    [
        ("no", 1, 0, False), ("", 1, 0, False), ("always", 0, 99, True), ("unless-stopped", 0, 99, True),
        ("on-failure", 0, 0, False), ("on-failure", 137, 99, True), ("on-failure:2", 1, 1, True),
        ("on-failure:2", 1, 2, False), ("on-failure:0", 1, 50, True),
    ],
)  # fmt: skip
def test_what_each_policy_restarts(policy: str, code: int, count: int, restarts: bool) -> None:
    config = Config("id", "name", "busybox", ("true",), restart=policy)
    assert (restarting.due(config, ENDED.replace(exit_code=code), Past(count)) is not None) == restarts
    stopped = restarting.due(config, ENDED.replace(exit_code=code), Past(count, stopped=restarting._boot()))
    assert stopped is None, "a user has stopped it"
    of_another_boot = restarting.due(config, ENDED.replace(exit_code=code), Past(count, stopped="before"))
    assert (of_another_boot is not None) == (policy == "always"), "always: also when the host has been started again"


def test_the_pauses_double_to_a_minute_and_begin_anew_after_ten_seconds() -> None:
    config = Config("id", "name", "busybox", ("true",), restart="always")
    pauses, past = [], Past()
    for _ in range(12):
        at = restarting.due(config, ENDED, past)
        assert at is not None
        pauses.append(round(at - 101.0, 3))
        past = past.replace(delay=pauses[-1])
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0]
    assert restarting.due(config, ENDED.replace(finished=110.0), past) == pytest.approx(110.1)


def test_on_failure_so_many_times_and_wait_waits_for_the_last(command: Command) -> None:
    command("run", "-d", "--name", "a", "--restart", "on-failure:3", "busybox", "sh", "-c", "echo up; exit 4")
    assert command("wait", "a").stdout == "4\n"
    written = times(command, "a")
    assert len(written) == 4
    for pause, before, after in zip((0.1, 0.2, 0.4), written, written[1:], strict=False):
        assert after - before >= pause
    found = shown(command, "a")
    assert found["RestartCount"] == 3 and not found["State"]["Restarting"]
    assert found["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    wait_until(lambda: keeper_of(command) is None, "nothing is left to keep")
    command("start", "a")
    assert shown(command, "a")["RestartCount"] < 3, "its user has started it: it counts anew"


def test_what_is_stopped_or_killed_by_its_user_is_not_restarted(command: Command) -> None:
    for name, order in (("a", ["stop", "-t", "0"]), ("b", ["kill"])):
        command("run", "-d", "--name", name, "--restart", "always", "busybox", "sleep", "600")
        assert command(*order, name).returncode == 0
        assert command("wait", name).stdout in ("137\n", "143\n")  # sleep heard of SIGTERM, or not any more
        assert shown(command, name)["State"]["Status"] == "exited" and shown(command, name)["RestartCount"] == 0
    assert command("restart", "-t", "0", "a").returncode == 0
    end([program_of(command, "a")])
    at_restart(command, "a", 1)


def test_what_can_be_done_while_a_restart_is_due(command: Command) -> None:
    command("run", "-d", "--name", "a", "--restart", "unless-stopped", "busybox", "sleep", "600")
    [record] = (command.root / "containers").glob("*")
    (record / "restarts").write_text(json.dumps(Past(4, delay=60.0).asdict()))  # so the next pause is a minute
    end([program_of(command, "a")])
    wait_until(lambda: shown(command, "a")["State"]["Status"] == "restarting", "a restart is due")
    assert "restarting" in command("ps", "--filter", "name=a").stdout
    assert "about to be restarted" in one_line(command("rm", "a").stderr)
    assert "does not run" in one_line(command("pause", "a").stderr)
    assert command("rename", "a", "b").returncode == 0
    assert command("stop", "b").returncode == 0
    assert shown(command, "b")["State"]["Status"] == "exited"
    assert command("rm", "b").returncode == 0


def test_update_changes_the_policy(command: Command) -> None:
    command("run", "-d", "--name", "a", "busybox", "false")
    assert command("wait", "a").stdout == "1\n"
    assert command("update", "--restart", "on-failure:1", "a").stdout == "a\n"
    at_restart(command, "a", 1)
    assert command("wait", "a").stdout == "1\n"


def test_what_cannot_be_started_again_says_why(command: Command) -> None:
    command("run", "-d", "--name", "a", "--restart", "always", "busybox", "sh", "-c", "mv /bin/busybox /bin/other")
    found = wait_until(lambda: (state := shown(command, "a")["State"])["Error"] and state, "the restart fails")
    assert "no such file" in found["Error"] and (found["ExitCode"], found["Status"]) == (126, "exited")


def test_the_keeper_is_killed_and_the_next_command_starts_another(command: Command) -> None:
    command("run", "-d", "--name", "a", "--restart", "always", "busybox", "sh", "-c", "echo up; exec sleep 600")
    command("run", "-d", "--name", "b", "--health-cmd", "true", "--health-interval", "50ms", "busybox", "sleep", "600")
    first = a_keeper(command)
    end([first])
    assert keeper_of(command) is None
    program = program_of(command, "a")
    end([a_keeper(command), program])  # top has started it again; now its container ends unseen, too
    command("ps")
    at_restart(command, "a", 1)
    wait_until(lambda: command("logs", "a").stdout == "up\nup\n", "it is up again, and no line is lost")
    assert a_keeper(command) != first
    wait_until(lambda: shown(command, "b")["State"]["Health"]["Status"] == "healthy", "b is checked")


def test_the_keeper_is_killed_at_whatever_point_of_restarts(command: Command) -> None:
    command("run", "-d", "--name", "a", "--restart", "on-failure:4", "busybox", "sh", "-c", "echo up; exit 3")
    for number in range(1, 5):
        at_restart(command, "a", number)
        if (keeper := keeper_of(command)) is not None:
            end([keeper])
    command("ps")
    assert command("wait", "a").stdout == "3\n"
    assert (shown(command, "a")["RestartCount"], command("logs", "a").stdout) == (4, "up\n" * 5)


def test_a_restart_whose_doer_was_killed_is_begun_anew() -> None:
    config = Config("id", "name", "busybox", ("true",), restart="always")
    assert restarting.due(config, State("created"), Past(3, 0.4, begun=True)) == 0.0
    assert restarting.due(config, State("created"), Past()) is None, "it was never started"


def test_health_comes_and_goes(command: Command) -> None:
    options = ["--health-cmd", "echo looked; test -e /well", "--health-interval", "50ms", "--health-retries", "2"]
    command("run", "-d", "--name", "a", *options, "busybox", "sleep", "600")
    wait_until(lambda: "(unhealthy)" in command("ps").stdout, "it becomes unhealthy")
    assert command("ps", "-q", "--filter", "health=unhealthy").stdout and not command("ps", "-q", "--filter", "health=healthy").stdout  # fmt: skip
    found = shown(command, "a")["State"]["Health"]
    assert found["FailingStreak"] >= 2 and found["Log"][-1]["ExitCode"] == 1 and found["Log"][-1]["Output"] == "looked\n"  # fmt: skip
    command("exec", "a", "touch", "/well")
    wait_until(lambda: "(healthy)" in command("ps").stdout, "it is well again")
    wait_until(lambda: len(shown(command, "a")["State"]["Health"]["Log"]) == 5, "five results are kept")
    told = command("events", "--since", "10m", "--until", "0s", "--filter", "event=health_status", "--format", "{{.Action}}")  # fmt: skip
    assert told.stdout.splitlines() == ["health_status: unhealthy", "health_status: healthy"]


def test_checks_that_are_asked_for(command: Command) -> None:
    options = ["--health-cmd", "test -e /well", "--health-interval", "disable", "--health-retries", "1"]
    command("run", "-d", "--name", "a", *options, "--health-start-period", "1h", "busybox", "sleep", "600")
    done = command("healthcheck", "run", "a")
    assert (done.returncode, done.stdout) == (1, "starting\n"), "it is not expected to be well yet"
    assert "(health: starting)" in command("ps").stdout
    command("exec", "a", "touch", "/well")
    done = command("healthcheck", "run", "a")
    assert (done.returncode, done.stdout) == (0, "")
    command("exec", "a", "rm", "/well")
    done = command("healthcheck", "run", "a")
    assert (done.returncode, done.stdout) == (1, "unhealthy\n")
    command("pause", "a")
    assert "is paused" in one_line(command("healthcheck", "run", "a").stderr)
    command("unpause", "a")


def test_a_check_that_takes_too_long_is_killed(command: Command) -> None:
    options = ["--health-cmd", "echo begun; sleep 600", "--health-interval", "disable", "--health-timeout", "300ms"]
    command("run", "-d", "--name", "a", *options, "busybox", "sleep", "600")
    assert command("healthcheck", "run", "a").returncode == 1
    [result] = shown(command, "a")["State"]["Health"]["Log"]
    assert result["ExitCode"] == -1 and result["Output"].startswith("Health check exceeded timeout (0.3s)")


@pytest.mark.parametrize(
    ("action", "policy", "status", "restarts"),
    [("kill", "no", "exited", 0), ("stop", "always", "exited", 0), ("restart", "no", "running", 1),
     ("kill", "always", "running", 1), ("none", "always", "running", 0)],
)  # fmt: skip
def test_what_is_done_when_it_is_unhealthy(
    command: Command, action: str, policy: str, status: str, restarts: int
) -> None:
    options = ["--health-cmd", "test -e /well", "--health-interval", "disable", "--health-retries", "1"]
    script = "trap 'exit 0' TERM; while :; do sleep 0.02; done"
    command("run", "-d", "--name", "a", "--restart", policy, *options, "--health-on-failure", action, "busybox", "sh", "-c", script)  # fmt: skip
    assert command("healthcheck", "run", "a").returncode == 1
    found = wait_until(
        lambda: (
            (found := shown(command, "a"))["State"]["Status"] == status and found["RestartCount"] == restarts and found
        ),
        f"it is {status}",
    )
    assert found["State"].get("Health", {}).get("Status") == ("unhealthy" if not restarts else "starting")


def test_what_an_image_says_counts_unless_its_user_says_otherwise() -> None:
    image = (("CMD", "well"), 5.0, None, 7.0, 9)
    assert Check().over(image) == Check(("CMD", "well"), 5.0, None, 7.0, 9)
    assert Check(interval=1.0, on_failure="kill").over(image) == Check(("CMD", "well"), 1.0, None, 7.0, 9, "kill")
    assert not health.has_check(Config("id", "n", "i", ("true",), health=Check(("NONE",)).over(image)))
    assert (Check().every, Check().limit, Check().tries) == (30.0, 30.0, 3)


def test_an_image_with_a_healthcheck() -> None:
    from minicontainer.images.documents import read_config

    def read(check: object) -> tuple[object, ...]:
        config = {"rootfs": {"type": "layers", "diff_ids": []}, "config": {"Healthcheck": check}}
        return read_config(json.dumps(config).encode()).health_check

    said = {"Test": ["CMD-SHELL", "true"], "Interval": 2_000_000_000, "Timeout": 0, "Retries": 4}
    assert read(said) == (("CMD-SHELL", "true"), 2.0, None, None, 4)
    assert read({}) == () and read({"Test": ["NONE"]})[0] == ("NONE",)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--restart", "often"], "unknown policy 'often'"),
        (["--restart", "always:3"], "maximum retry count can only be used with 'on-failure'"),
        (["--restart", "on-failure:x"], "maximum retry count must be an integer"),
        (["--restart", "always", "--rm"], "cannot specify both --restart and --rm"),
        (["--health-cmd", ""], "--health-cmd"),
        (["--health-cmd", "true", "--health-interval", "soon"], "--health-interval"),
        (["--health-cmd", "true", "--health-interval", "0s"], "--health-interval"),
        (["--health-cmd", "true", "--health-timeout", "0s"], "--health-timeout"),
        (["--health-cmd", "true", "--health-retries", "0"], "--health-retries"),
        (["--health-cmd", "true", "--health-retries", "-1"], "--health-retries"),
        (["--health-cmd", "true", "--health-start-period", "5"], "--health-start-period"),
        (["--health-cmd", "true", "--health-on-failure", "cry"], "--health-on-failure"),
        (["--health-on-failure", "kill"], "there is no check"),
        (["--health-cmd", "true", "--no-healthcheck"], "--no-healthcheck conflicts"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(minicontainer: Command, options: list[str], told: str) -> None:
    done = minicontainer("run", "-d", *options, "busybox", "true")
    assert done.returncode == 125 and told in one_line(done.stderr)
    assert minicontainer.containers() == []


def test_mistakes_about_containers_that_are_there(command: Command) -> None:
    command("create", "--name", "a", "busybox", "true")
    assert "has no health check" in one_line(command("healthcheck", "run", "a").stderr)
    assert "unknown policy" in one_line(command("update", "--restart", "often", "a").stderr)
    assert "health is one of" in one_line(command("ps", "--filter", "health=odd").stderr)


def test_the_keeper_is_alone_and_holds_nothing_of_its_starter(command: Command) -> None:
    for number in range(3):
        command("run", "-d", "--name", f"a{number}", "--restart", "always", "busybox", "sleep", "600")
    pid = a_keeper(command)

    def files() -> list[str]:
        found = []
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # it is just looking
                found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        return found

    wait_until(lambda: files().count("anon_inode:[pidfd]") == 3, "it knows of all three")
    named = [f"{command.root}/keeper.lock", *["/dev/null"] * 3]
    wait_until(lambda: sorted(file for file in files() if file.startswith("/")) == sorted(named), "and holds no more")
    assert os.getpgid(pid) != os.getpgrp() and os.kill(pid, signal.SIGCONT) is None
