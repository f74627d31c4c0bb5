"""Cells apart, what looks, and what tidies: in a real kernel, with the host looked at before and after."""

from __future__ import annotations

import select
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from tests.labs.test_magics import RIGHT, execute, said

SHOW = "import os, threading; print(os.readlink('/proc/self/ns/uts'), os.uname().nodename, os.getpid())"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the kernels of this module run, and keep what they keep."""
    return tmp_path_factory.mktemp("apart")


def test_a_cell_is_born_into_the_namespaces_that_are_named_and_the_kernel_stays(place: Path) -> None:
    threads, before, apart, after, diff = said(
        "import os; print(len(os.listdir('/proc/self/task')))",
        SHOW,
        "%%isolated --new uts,pid,mnt\nsethostname('apart')\nprint(os.getpid(), os.uname().nodename)\n%nsdiff sandbox",
        SHOW,
        "%nsdiff",
        place=place,
    )
    assert int(threads) >= 6  # a kernel has many: one alone would prove nothing
    assert before == after
    assert apart.startswith("1 apart\n")
    new = {line.split()[1] for line in apart.splitlines() if line.startswith("≠")}
    assert new == {"uts", "pid", "mnt"}
    assert "all 8 are the same" in diff or "all 7 are the same" in diff


def test_each_kind_alone(place: Path) -> None:
    kinds = ["mnt", "uts", "ipc", "pid", "net", "user", "cgroup", "time"]
    told = said(*(f"%%isolated --new {kind}\n%nsdiff sandbox\nprint(os.getuid())" for kind in kinds), place=place)
    for kind, apart in zip(kinds, told, strict=True):
        assert {line.split()[1] for line in apart.splitlines() if line.startswith("≠")} == {kind}
        assert apart.splitlines()[-1] == "0"


def test_what_a_cell_apart_does_is_shown_as_before_and_after(place: Path) -> None:
    (apart,) = said(
        "%%isolated\nunshare(CLONE_NEWIPC)\n%nsdiff\nmount('tmpfs', '/mnt', 'tmpfs')\n%mounts\n", place=place
    )
    assert {line.split()[1] for line in apart.splitlines() if line.startswith("≠")} == {"ipc"}
    assert [line.split()[:3] for line in apart.splitlines() if line.startswith("+")] == [["+", "/mnt", "tmpfs"]]


def test_output_pictures_and_errors_come_back_in_their_order(place: Path) -> None:
    new = nbformat.v4
    source = (
        "%%isolated --new uts\nfrom labs.notebook import pictures\nprint('first')\nos.system('echo second')\n"
        "pictures.namespaces(1)\nprint('third', '€')\n1 / 0\n"
    )
    cells = [new.new_code_cell(text) for text in ("%load_ext labs.notebook", source)]  # type: ignore[no-untyped-call]
    outputs = execute(new.new_notebook(cells=cells), place)[-1].outputs  # type: ignore[no-untyped-call]
    assert [one.output_type for one in outputs] == ["stream", "display_data", "stream", "stream"]
    assert outputs[0].text == "first\nsecond\n"
    assert outputs[1].data["image/png"].startswith("iVBOR")
    assert "uts" in outputs[1].data["text/plain"]
    assert "uts:[" in outputs[1].metadata["image/png"]["alt"]
    assert outputs[2].text == "third €\n"
    assert outputs[3].name == "stderr"
    assert "ZeroDivisionError" in outputs[3].text
    assert 'File "<cell>", line 6' in outputs[3].text


def test_the_value_of_the_last_line_and_figures_are_shown(place: Path) -> None:
    new = nbformat.v4
    source = "%%isolated\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\n6 * 7"
    cells = [new.new_code_cell(text) for text in ("%load_ext labs.notebook", source)]  # type: ignore[no-untyped-call]
    outputs = execute(new.new_notebook(cells=cells), place)[-1].outputs  # type: ignore[no-untyped-call]
    assert outputs[0].data["text/plain"] == "42"
    assert "image/png" in outputs[1].data


def test_processes_groups_and_packets_are_shown(place: Path) -> None:
    tree, group, heard, way, here = said(
        "%%isolated --new pid\nchild = os.fork()\nif child == 0:\n    os._exit(0)\n"
        "import select\nselect.select([os.pidfd_open(child)], [], [])\n%pstree 1\n",
        "%%isolated\n%cgroup\n",
        "%%isolated\nfrom minicontainer.steps import Steps\nimport socket\nSteps().bring_up_loopback()\n%packets listen\n"
        "asks, hears = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))\n"
        "hears.bind(('127.0.0.1', 5300))\nasks.sendto(b'hello', ('127.0.0.1', 5300))\nhears.recv(9)\n%packets\n",
        "%packets out",
        "%pstree\n%cgroup\n%mounts self",
        place=place,
    )
    assert "zombie" in tree
    assert "hierarchy" in group
    assert "UDP" in heard
    assert "127.0.0.1:5300" in heard
    assert "translated" in way
    assert "number here" in here
    assert "control groups of this process" in here


def test_explain_lists_the_calls_of_a_command_and_of_a_cell(place: Path) -> None:
    command, cell = said(
        "%explain run --rm --network none --hostname alpha busybox hostname",
        "%%isolated --explain\nunshare(CLONE_NEWUTS)\nsethostname('beta')\n",
        place=place,
    )
    assert "uts.set_names" in command
    assert "pivot_root(2)" in command
    assert command.rstrip().endswith("alpha")
    assert "unshare(CLONE_NEWUTS) = 0" in cell
    assert 'sethostname("beta", 4) = 0' in cell


def test_what_a_cell_leaves_running_is_ended_and_named(place: Path) -> None:
    orphan, child, container, left = said(
        "import subprocess\nsubprocess.run('sleep 1234 & echo $!', shell=True, stdout=open('orphan', 'w'))\nNone",
        "child = subprocess.Popen(['sleep', '1235'])",
        "from labs.notebook.session import engine\nmine = engine()\n"
        "running = mine.start(mine.create('busybox', ['sleep', '600'], name='mine'))",
        "print([config.name for config, _ in engine().containers()])",
        place=place,
    )
    assert "nothing outlives its cell: sleep" in orphan
    assert "nothing outlives its cell: sleep" in child
    assert "nothing outlives its cell: container mine" in container
    assert left.strip() == "[]"
    assert not Path("/proc", (place / "orphan").read_text().strip()).exists()


def test_a_cell_apart_that_hangs_or_is_interrupted_leaves_nothing(place: Path) -> None:
    hanging, interrupted, after = said(
        "from labs.notebook import isolated\nisolated.PATIENCE = 1\n"
        "get_ipython().run_cell_magic('isolated', '', 'print(1)\\nos.system(\"sleep 4321 & sleep 4321\")')",
        "isolated.PATIENCE = 60\nimport os, signal, threading\n"
        "threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "get_ipython().run_cell_magic('isolated', '', 'os.system(\"sleep 4321\")')",
        "!ps -eo args | grep -c '^sleep 432[1]'",
        place=place,
    )
    assert "it was not done after 1 seconds" in hanging
    assert hanging.startswith("1\n")
    assert "KeyboardInterrupt" in interrupted
    assert after.strip() == "0"


def test_a_cell_apart_ends_with_a_kernel_that_is_killed(place: Path) -> None:
    program = "from labs.notebook import isolated; isolated.run('', 'import time; time.sleep(600)', {})"
    with subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[2]) as kernel:
        process = psutil.Process(kernel.pid)
        deadline = time.monotonic() + 30
        while len(family := process.children(recursive=True)) < 2:  # unshare, and process 1 of the sandbox
            assert time.monotonic() < deadline
            select.select([], [], [], 0.01)
        kernel.kill()
    gone, alive = psutil.wait_procs(family, timeout=30)
    assert len(gone) >= 2
    assert alive == []


def test_reset_leaves_nothing(place: Path) -> None:
    *_, reset, check, name, hint = said(
        RIGHT,
        "from labs.notebook.session import engine\nengine().run('busybox', ['true'])\nNone",
        "import subprocess\nwith engine().started('busybox', ['sleep', '60']):\n    pass",
        "%hint uts.set_names",
        "%reset-lab",
        "%check",
        "set_names",
        "%hint uts.set_names",
        place=place,
    )
    assert "gone: the directory" in reset
    assert "no cell that begins with %%exercise was run yet" in check
    assert "NameError" in name
    assert hint.startswith("1 of ")
    assert not (place / "state" / "containers").exists()


def test_predictions_are_recorded_and_looked_back_on(place: Path) -> None:
    first, second, back, changed, again, unnamed, unmarked, unknown = said(
        "%%predict name\nWhich name?\nMy prediction:",
        "%%predict name\nWhich name?\nMy prediction: the old one",
        "measured = 'alpha'\n%look_back name {measured}",
        "%%predict name\nWhich name?\nMy prediction: the new one",
        "%look_back name",
        "%%predict\nWhat?",
        "%%predict other\nWhat?",
        "%look_back nothing",
        place=place,
    )
    assert "Nothing is predicted yet" in first
    assert "Recorded" in second
    assert "You predicted: the old one" in back
    assert "The kernel:    alpha" in back
    assert "Recorded" in changed
    assert "You predicted: the new one" in again
    assert "Before you saw the outcome, that was: the old one" in again
    assert "needs a name" in unnamed
    assert "is missing" in unmarked
    assert 'there is no prediction "nothing"; there are: name' in unknown


def test_hints_come_a_step_at_a_time(place: Path) -> None:
    first, second, again, unknown = said(
        "%hint uts.set_names", "%hint uts.set_names", "%hint uts.set_names 1", "%hint nothing", place=place
    )
    assert first.startswith("1 of ")
    assert second.startswith("2 of ")
    assert again.split("(")[0] == first.split("(")[0]
    assert "%hint uts.set_names" in unknown


def test_what_is_misspelt_is_told(place: Path) -> None:
    kind, option, process, packet, foreign = said(
        "%%isolated --new uts,nothing\npass",
        "%%isolated --nothing\npass",
        "%nsdiff nobody",
        "%packets",
        "%%isolated\n%hint uts.set_names",
        place=place,
    )
    assert '"nothing" is no kind of namespace' in kind
    assert "unrecognized arguments: --nothing" in option
    assert '"nobody" is no process' in process
    assert "%packets out" in packet
    assert "%hint does not work in a cell apart" in foreign
