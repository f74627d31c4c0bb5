"""The documents say what is so: commands exist, transcripts are what is printed, links lead somewhere."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.command import command_line, needs_root

ROOT = Path(__file__).resolve().parents[2]
PAGES = {str(page.relative_to(ROOT)): page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
TEACHING = PAGES["docs/TEACHING.md"]
FEATURES = PAGES["docs/FEATURES.md"]

DEADLINE = 120  # s, for a command that takes one
ELSEWHERE = re.compile(r"[a-z]+:")
PROGRAMS = ("labs", "minicontainer")


@dataclass(frozen=True)
class Fence:
    """A block of code in a page."""

    language: str
    text: str
    path: str | None
    """The file that it is, if the line before says so: `labs/course/…`:"""


def fences(page: Path) -> list[Fence]:
    """All of them, in order."""
    found = re.finditer(
        r"(?:^`([^`\n]+)`:\n\n)?^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return [Fence(match[2], match[3], match[1]) for match in found]


# --- Commands and their options -------------------------------------------------------------------------------------


@cache
def told(*words: str) -> str:
    """What the help of a command says."""
    program, *rest = words
    line = [sys.executable, "-m", "labs"] if program == "labs" else command_line()
    done = subprocess.run([*line, *rest, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, f"{' '.join(words)} --help: {done.stderr}"
    return done.stdout


def spoken_of(page: Path) -> Iterator[str]:
    """Every command of ours that a page writes out, in blocks and within a line."""
    text = page.read_text(encoding="utf-8")
    for fence in fences(page):
        if fence.language in ("sh", "console"):
            yield from re.findall(r"^(?:\$ )?((?:\w+=\S+ )*(?:labs|minicontainer) .+)$", fence.text, re.MULTILINE)
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"`((?:labs|minicontainer) [^`]+)`", outside)


def options_that_are_not(line: str) -> Iterator[str]:
    """The command, if there is none of that name, and its options that its help does not know."""
    words = shlex.split(line, comments=True)
    words = words[next(index for index, word in enumerate(words) if word in PROGRAMS) :]
    program, general, words = words[0], told(words[0]), words[1:]
    while words and words[0].startswith("-"):  # options before the command: --root DIR
        option, _, words = words[0], words.pop(0), words[1:]
        if not re.search(rf"{option}\b", general):
            yield f"{program} {option}"
    if not words or not re.fullmatch(r"[a-z]+", words[0]):
        return
    command, words = words[0], words[1:]
    if not re.search(rf"\b{command}\b", general.replace(f"usage: {program}", "")):
        yield f"{program} {command}"
        return
    known = told(program, command)
    if "WHAT --help says more" in known:  # network create, network ls
        known = told(program, command, words[0])
    for word in words:
        if word in (";", "|", "busybox", "&&"):  # from the image on, the words are the container's
            return
        for option in [word] if word.startswith("--") or len(word) <= 2 else [f"-{letter}" for letter in word[1:]]:
            if word.startswith("-") and not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", known):
                yield f"{program} {command} {option}"


@pytest.mark.parametrize("name", PAGES)
def test_every_command_and_option_that_a_page_names_exists(name: str) -> None:
    assert [(line, wrong) for line in spoken_of(PAGES[name]) for wrong in options_that_are_not(line)] == []


def test_a_command_or_option_that_does_not_exist_is_noticed() -> None:
    assert list(options_that_are_not("labs grade 03 submissions/ --out grades/ --fast")) == ["labs grade --fast"]
    assert list(options_that_are_not("minicontainer run -xt --rm busybox ls --all")) == ["minicontainer run -x"]
    assert list(options_that_are_not("minicontainer --root /x teleport")) == ["minicontainer teleport"]
    assert list(options_that_are_not("labs check 03 --subject my.ipynb --json")) == []


def test_every_make_target_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for name, page in PAGES.items():
        named = re.findall(r"(?:`|^)make ([a-z0-9-]+)\b", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(named) <= targets, name


# --- Links ----------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """What a link can point to within a page: its headings, as code hosts name them."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    page = PAGES[name]
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if ELSEWHERE.match(link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), f"{link} leads out of the checkout"
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("name", PAGES)
def test_every_file_of_the_project_that_a_page_names_exists(name: str) -> None:
    """`labs/grading/sandbox.py`, within backquotes; NN stands for any number, and 90 is the example of TEACHING."""
    named = re.findall(
        r"`((?:labs|minicontainer|tests|docs|benchmarks|vm|notebooks)/[\w./-]*)(?:::\w+)?`",
        PAGES[name].read_text(encoding="utf-8"),
    )
    assert [path for path in named if not re.search("NN|90", path) and not (ROOT / path).exists()] == []


# --- Transcripts ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A command of a transcript, and what it is to print."""

    command: str
    output: str
    status: int


def steps(transcript: str) -> list[Step]:
    """What is in a ``console`` block. A last line [N] is the exit status."""
    found = []
    for part in re.split(r"^\$ ", transcript, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        status = re.search(r"^\[(\d+)\]\n\Z", output, re.MULTILINE)
        found.append(Step(command, output[: status.start()] if status else output, int(status[1]) if status else 0))
    return found


def pattern(output: str) -> re.Pattern[str]:
    """… is anything within a line, and a line with nothing else is any number of lines."""
    lines = re.split(r"(?<=\n)", output)
    return re.compile("".join(
        r"(?:.*\n)*?" if line == "…\n" else ".*".join(map(re.escape, line.split("…"))) for line in lines
    ))  # fmt: skip


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the transcripts use and change, with the two commands before all others in PATH."""
    place = tmp_path / "checkout"
    ignore = shutil.ignore_patterns("__pycache__", "90*", "test_90*")
    for part in ("labs", "minicontainer", "notebooks", "tests/checks"):
        shutil.copytree(ROOT / part, place / part, ignore=ignore)
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, options in (("labs", []), ("minicontainer", ["--root", f"{tmp_path}/state"])):
        command = commands / name
        command.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-m", name, *options])} "$@"\n')
        command.chmod(0o755)
    return place


def played(step: Step, checkout: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of a transcript."""
    environment = {**os.environ, "PATH": f"{checkout.parent}/bin{os.pathsep}{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    environment.pop("LABS_DEADLINE", None)
    return subprocess.run(
        ["sh", "-c", step.command],
        cwd=checkout,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


def test_the_transcripts_of_teaching_are_what_is_printed(checkout: Path) -> None:
    """From the top of the page to its end, in one copy of the checkout; files are written where the page shows them."""
    count = 0
    for fence in fences(TEACHING):
        if fence.path:
            path = checkout / fence.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(fence.text, encoding="utf-8")
        for step in steps(fence.text) if fence.language == "console" else []:
            done = played(step, checkout)
            shown = f"$ {step.command}\n{done.stdout}{done.stderr}[{done.returncode}]"
            assert done.returncode == step.status, shown
            assert pattern(step.output).fullmatch(done.stdout), f"{shown}\n--- the page says:\n{step.output}"
            count += 1
    assert count > 10, "the transcripts have gone, or are not found any more"


@needs_root
def test_the_explanation_is_what_is_printed(checkout: Path) -> None:
    [step] = [step for fence in fences(PAGES["docs/EXPLAIN.md"]) for step in steps(fence.text)]
    done = played(step, checkout)
    assert done.returncode == 0 and pattern(step.output).fullmatch(done.stdout), done.stdout


@needs_root
def test_the_transcripts_of_rosetta_are_what_is_printed(checkout: Path) -> None:
    """From its top to its end, with one state directory; at the end there is no container left."""
    shown = [step for fence in fences(PAGES["docs/ROSETTA.md"]) for step in steps(fence.text)]
    try:
        for step in shown:
            done = played(step, checkout)
            said = f"$ {step.command}\n{done.stdout}{done.stderr}[{done.returncode}]"
            assert done.returncode == step.status, said
            assert pattern(step.output).fullmatch(done.stdout), f"{said}\n--- the page says:\n{step.output}"
        assert len(shown) > 30, "the transcripts have gone, or are not found any more"
        assert played(Step("minicontainer ps -aq", "", 0), checkout).stdout == ""
    finally:
        played(Step("minicontainer ps -aq | xargs -r minicontainer rm -f --snapshots", "", 0), checkout)


def test_rosetta_has_every_command_of_the_features() -> None:
    rows = "\n".join(re.findall(r"^\| (?!LXC|Docker|---)(.*?) \|", PAGES["docs/ROSETTA.md"].read_text(), re.MULTILINE))
    asked = [*re.findall(r"\blxc-[a-z]+", FROM_THE_NOTES), "virbr0"]
    asked += "run create start attach ps logs stop kill rm images pull search history network volume".split()
    asked += (
        "commit diff tag push save load export import prune cp stats events inspect wait rename port update".split()
    )
    assert [word for word in asked if not re.search(rf"(?<![\w-]){word}\b", rows)] == []


def test_a_transcript_that_is_not_what_is_printed_is_noticed() -> None:
    assert pattern("a …\n…\nz\n").fullmatch("a b\nc\nd\nz\n")
    assert pattern("a …\n…\nz\n").fullmatch("a b\nz\n")
    assert not pattern("a …\nz\n").fullmatch("a b\nc\nz\n")
    assert not pattern("").fullmatch("a\n")
    assert steps("$ false\n[1]\n$ echo [1]\n[1] x\n") == [Step("false", "", 1), Step("echo [1]", "[1] x\n", 0)]


def test_the_readme_runs_a_container_as_it_says(checkout: Path) -> None:
    """Its transcript, but for the lines that want a terminal."""
    (transcript,) = [fence for fence in fences(PAGES["README.md"]) if fence.language == "console"]
    ran = []
    for step in steps(transcript.text):
        if " -it " in step.command or step.command.startswith(". "):
            continue
        done = played(step, checkout)
        ran.append(step.command)
        assert done.stderr == "", step.command
        if "hostname" in step.command:
            assert re.fullmatch(r"[0-9a-f]{12}\n", step.output)
            assert re.fullmatch(r"[0-9a-f]{12}\n", done.stdout)
        if "ps -a" in step.command:
            assert "c1" in done.stdout and "exited (3)" in done.stdout
        if step.command.endswith("rm c1"):
            assert (done.returncode, done.stdout) == (0, "c1\n")
    assert len(ran) >= 3


# --- Features -------------------------------------------------------------------------------------------------------

FROM_THE_NOTES = """\
Type I/II virtualization, two kernels, "heavy"
package once, run anywhere (the tomcat story)
chroot
6 namespaces: Mount 2.4.19, UTS 2.6.19, IPC 2.6.19, PID 2.6.24, Network, User
clone(), setns(), unshare()
cgroup v1: blkio
cpu (compressible)
cpuacct
cpuset
devices
freezer
memory (incompressible)
perf_event ("pref_event" in the notes)
net_cls
also pids, hugetlb, rdma, misc
group1 → group1-1
memory 1:2:1 over three, one maximum each
cgroup v1, hybrid and v2
SELinux hardening, "most do not enable it"
lxc-checkconfig
lxc-create -t TEMPLATE; templates fetch a distribution; mirrors; /var/lib/lxc/N/rootfs; chroot passwd
lxc-start -d and foreground, login console
lxc-info, ip/ss inside
lxc-top
lxc-monitor
lxc-freeze / unfreeze
lxc-stop, lxc-destroy
lxc-attach
lxc-console -t N, ctrl-a q
lxc-snapshot (make, -L, -r, -d)
lxc-clone -s (overlayfs; "error mounting" in the notes)
physical bridge virbr0
ssh login into a container
LXC Web Panel (Flask, admin:admin)
docker search, pull NAME[:tag]
docker images, create, start, run (= create + start)
attach, ctrl-p ctrl-q
ps, ps -a, logs, stop, kill, rm, rm -f
docker0 172.17.0.1, iptables -t nat
image layers: bootfs is the host's kernel; base + tools + app + writable top
objects: images, containers, networks, volumes
client, daemon, registry; systemctl start
lxc → libcontainer → runC; OCI ("OCL")
one process per container, no init; LNMP = three containers
debugging without tools inside
"""
EXPECTED_TODAY = """\
build from a Containerfile (multi-stage, cache, heredocs, .dockerignore)
commit, diff, history, tag, push, save/load, export/import, prune
cp both ways, safe against symlink races
stats, events, inspect, wait, rename, port, update limits live
publish ports, `-v`, tmpfs, named volumes
names by DNS on a network, hosts and resolv.conf
user-namespace remap, rootless run
cap-add/drop, seccomp profile files in Docker's JSON format, no-new-privs, read-only root, masked paths
--init, tty resize, detach keys
healthcheck, restart policies
rlimits, sysctls, env files, labels, --format, shell completion
OCI hooks
exec -it
systemd in a container
"""
ASKED_FOR_IN_VAIN = """\
change published ports and mounts of a running container
act when unhealthy
idmapped volume (`:idmap`) so that files keep sane owners
/proc/meminfo and cpuinfo that show the container's limits
publish on 127.0.0.1 unless told otherwise
reaper on by default
disk quota per container
host.containers.internal
squash on build
time namespaces
checkpoint/restore where CRIU is installed
`--explain` on any command: prints each kernel call that it makes, in order, with the man page it comes from, as a \
shell user or a student could repeat it
"""
WANTED = (FROM_THE_NOTES + EXPECTED_TODAY + ASKED_FOR_IN_VAIN).splitlines()

NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@dataclass(frozen=True)
class Feature:
    """A row of docs/FEATURES.md."""

    name: str
    command: str
    shown: str

    @property
    def tests(self) -> list[tuple[str, str]]:
        """The tests that it names: file and function."""
        return NAMED_TEST.findall(self.shown)


def features() -> list[Feature]:
    """The rows of all its tables."""
    lines = [line for line in FEATURES.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("| row |")]
    assert all(len(row) == 3 for row in cells), [row for row in cells if len(row) != 3]
    return [Feature(*row) for row in cells]


def test_every_wanted_feature_has_its_row_in_its_order() -> None:
    assert [feature.name for feature in features()] == WANTED


@pytest.mark.parametrize("feature", features(), ids=lambda feature: feature.name)
def test_a_feature_is_shown_by_tests_that_exist_or_said_to_be_missing(feature: Feature) -> None:
    state, _, rest = feature.shown.partition(": ")
    assert state in ("yes", "partly", "not yet")
    assert len(rest) > 3, "which tests, or why not"
    if state == "not yet":
        assert (feature.command, feature.tests) == ("—", []), "of what is not there, something is there: partly"
    else:
        assert "`" in feature.command, "no command to see it with"
        assert feature.tests, "no test"
    if state == "partly":
        assert "; not yet: " in rest, "and what of it is missing?"
    if state == "yes":
        assert "not yet" not in rest
    for file, function in feature.tests:
        assert (ROOT / file).is_file(), file
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, function
