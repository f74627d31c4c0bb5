"""Lists and looks: ``ps`` and its filters, ``inspect``, and --format and --json, which are the same everywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from minicontainer.cli.formats import Template
from minicontainer.engine import EngineError
from tests.command import Command, needs_root, one_line

ITEM = {"Names": "web", "Labels": {"a": "1", "b": "2"}, "State": {"Pid": 7, "Running": True}, "Args": ["sh", "-c"]}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Names}}", "web"),
        ("{{ .Names }}: {{.State.Pid}}", "web: 7"),
        ("{{.State.Running}} {{.Args}} {{.Labels}}", "true [sh -c] map[a:1 b:2]"),
        ("{{json .State}}", '{"Pid": 7, "Running": true}'),
        ("{{.Names | upper | printf}}", None),
        ("{{.Names | upper}}", "WEB"),
        ('{{join .Args ", "}}', "sh, -c"),
        ('{{index .Labels "b"}}{{index .Args 1}}', "2-c"),
        ("{{range .Args}}<{{.}}>{{end}}", "<sh><-c>"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ('{{if eq .Names "db"}}db{{else}}other{{end}}', "other"),
        ('{{range .Args}}{{if eq . "sh"}}{{upper .}}{{end}}{{end}}', "SH"),
        ("{{len .Args}} {{if not (eq 1 2)}}differs{{end}}", "2 differs"),
        ("a {{- .Names -}} b", "awebb"),
        ("{{.Nope}}", None),
        ("{{.Names", None),
        ("{{range .Args}}", None),
        ("{{end}}", None),
        ("{{}}", None),
        ("{{Names}}", None),
        ('{{join .Args "}}', None),
        ("{{index .Args 7}}", None),
        ("{{.Names | }}", None),
    ],
)
def test_templates(template: str, text: str | None) -> None:
    if text is None:
        with pytest.raises(EngineError, match="--format"):
            print(Template(template).fill(ITEM))
    else:
        assert Template(template).fill(ITEM) == text


@pytest.fixture
def three(minicontainer: Command) -> Iterator[Command]:
    """Containers: alpha has ended with 3, beta was only created, gamma runs."""
    ended = minicontainer("run", "--name", "alpha", "-l", "tier=web", "-l", "x", "busybox", "sh", "-c", "exit 3")
    assert ended.returncode == 3, ended.stderr
    minicontainer("create", "--name", "beta", "-l", "tier=db", "--network", "host", "busybox", "echo", "x" * 80)
    minicontainer("run", "-d", "--name", "gamma", "-l", "tier=web", "--network", "none", "busybox", "sleep", "600")
    yield minicontainer
    minicontainer("rm", "-f", "gamma")


@needs_root
def test_ps_lists_what_is_asked_for(three: Command) -> None:
    def names(*arguments: str) -> list[str]:
        done = three("ps", "--format", "{{.Names}}", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert names() == ["gamma"]
    assert names("-a") == ["alpha", "beta", "gamma"]
    assert names("--last", "2") == ["beta", "gamma"] and names("-n", "0") == []
    assert names("-a", "--filter", "name=am") == ["gamma"]
    assert names("-a", "-f", "name=^(al|be)") == ["alpha", "beta"]
    assert names("-f", "status=created", "-f", "status=exited") == ["alpha", "beta"]
    assert names("-f", "exited=3") == ["alpha"] and names("-f", "exited=0") == []
    assert names("-a", "-f", "label=tier=web") == ["alpha", "gamma"]
    assert names("-a", "-f", "label=tier=web", "-f", "label=x") == ["alpha"]
    assert names("-a", "-f", "network=host") == ["beta"]
    assert names("-a", "-f", "ancestor=busybox") == ["alpha", "beta", "gamma"] and names("-f", "ancestor=nope") == []
    [identity] = three("ps", "-q").stdout.split()
    assert names("-a", "-f", f"id={identity[:5]}") == ["gamma"]
    three("pause", "gamma")
    assert names("-f", "status=paused") == ["gamma"] and names("-f", "status=running") == []
    three("unpause", "gamma")


@needs_root
def test_each_list_has_every_format(three: Command) -> None:
    assert three("ps", "--format", "table {{.Names}}\\t{{.State}}").stdout == "NAME   STATE\ngamma  running\n"
    assert [json.loads(line)["ID"] for line in three("ps", "-a", "--format", "json").stdout.splitlines()] == [
        one["ID"] for one in json.loads(three("ps", "-a", "--json").stdout)
    ]
    assert three("images", "--format", "{{.Repository}}:{{.Tag}}").stdout == "busybox:latest\n"
    for words in (["images"], ["history", "busybox"], ["network", "ls"], ["stats", "--no-stream"], ["system", "df"],
                  ["snapshot", "list", "alpha"], ["diff", "alpha"], ["inspect", "alpha"]):  # fmt: skip
        array = json.loads(three(*words, "--json").stdout)
        lines = three(*words, "--format", "json").stdout.splitlines()
        assert len(array) == len(lines), words
        wrong = three(*words, "--format", "{{.Nope")
        assert wrong.returncode == 125 and "never closed" in one_line(wrong.stderr), words
    assert "x" * 80 not in three("ps", "-a").stdout and "x" * 80 in three("ps", "-a", "--no-trunc").stdout


@needs_root
@pytest.mark.parametrize(
    "arguments",
    [["--filter", "colour=red"], ["--filter", "name"], ["--filter", "status=ill"], ["--filter", "exited=x"],
     ["--filter", "name=("], ["--last", "x"], ["--format", "{{.Nope}}"]],
)  # fmt: skip
def test_what_ps_does_not_understand_is_said_in_one_line(three: Command, arguments: list[str]) -> None:
    done = three("ps", "-a", *arguments)
    assert done.returncode == 125 and arguments[0].strip("-") in one_line(done.stderr)


@needs_root
def test_inspect_finds_containers_images_networks(three: Command) -> None:
    made = three("network", "create", "net1")
    assert made.returncode == 0, made.stderr
    shown = three("inspect", "gamma", "busybox", "net1")
    assert shown.returncode == 0, shown.stderr
    assert [list(one)[:2] for one in json.loads(shown.stdout)] == [["Id", "Name"], ["Id", "RepoTags"], ["Name", "Id"]]
    assert three("inspect", "--format", "{{.State.Status}}", "alpha", "gamma").stdout == "exited\nrunning\n"
    assert three("inspect", "--type", "image", "--format", "{{.Os}}", "busybox").stdout == "linux\n"
    for words in (["nope"], ["--type", "image", "gamma"], ["--type", "network", "busybox"]):
        done = three("inspect", *words)
        assert done.returncode == 1 and words[-1] in one_line(done.stderr)
    some = three("inspect", "alpha", "nope")
    assert some.returncode == 1 and [one["Name"] for one in json.loads(some.stdout)] == ["alpha"]
    three("network", "rm", "net1")
