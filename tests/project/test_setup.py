"""How the project is set up: system packages, the Makefile, the lock, the command's launcher, CI's entry."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from minicontainer.cli import launcher

ROOT = Path(__file__).resolve().parents[2]
TARGETS = [
    "help",
    "setup",
    "lab",
    "test",
    "test-v2",
    "test-vm",
    "lint",
    "format",
    "notebooks",
    "book",
    "bench",
    "man",
    "lock",
    "clean",
]
NOBODY = 65534


def run(
    *command: object, path: Path | None = None, cwd: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command as from a new shell, not as a part of `make test`; `path` comes first in PATH."""
    ours = ("MAKE", "MFLAGS", "LAB_CGROUP")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)} | variables
    if path:
        environment["PATH"] = f"{path}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def script(path: Path, text: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


# --- vm/provision.sh ------------------------------------------------------------------------------------------------


class Machine:
    """A make-believe Debian: a copy of provision.sh, and a PATH in which dpkg-query and apt-get are ours.

    The directory is one that every user can look into, which pytest's temporary directories are not.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bin = directory / "bin"
        self.bin.mkdir()
        self.installed = directory / "installed"
        self.log = directory / "log"
        self.log.touch(0o666)
        self.log.chmod(0o666)
        self.provision = Path(shutil.copy(ROOT / "vm" / "provision.sh", directory))
        for program in ("sh", "sed", "tr", "id", "env", "cat", "true"):
            found = shutil.which(program)
            assert found
            (self.bin / program).symlink_to(found)
        script(self.bin / "dpkg-query", f"cat {self.installed}")
        # Installs what it is told to, and writes down what that was and in what manner.
        script(
            self.bin / "apt-get",
            f"""
            echo "apt-get $* [$DEBIAN_FRONTEND]" >>{self.log}
            [ "$1" = install ] || exit 0
            for word; do case $word in -*|install) ;; *) echo "ii  $word" >>{self.installed} ;; esac; done
            """,
        )

    def has(self, *packages: str) -> None:
        """These are installed, and one that was removed and left its configuration files."""
        self.installed.write_text("".join(f"ii  {package}\n" for package in packages) + "rc  strace\n")
        self.installed.chmod(0o666)

    def has_sudo(self) -> None:
        script(self.bin / "sudo", f'echo "sudo $*" >>{self.log}\n[ "$1" = -n ] && shift && exec "$@"')

    def run(self, *arguments: str, user: int = NOBODY) -> subprocess.CompletedProcess[str]:
        """Run provision.sh there, as `user`."""
        become = [] if user == os.geteuid() else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        if become and os.geteuid() != 0:
            pytest.skip("only root can become another user")
        return subprocess.run(
            [*become, "/bin/sh", str(self.provision), *arguments],
            executable=shutil.which("setpriv") if become else None,
            env={"PATH": str(self.bin)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def calls(self) -> list[str]:
        """What apt-get and sudo were called with, in order."""
        return self.log.read_text().splitlines()


@pytest.fixture
def machine() -> Iterator[Machine]:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Machine(Path(directory))


@pytest.fixture(scope="module")
def packages() -> list[str]:
    return run(ROOT / "vm" / "provision.sh", "--list").stdout.split("\n")[:-1]


def test_the_list_is_of_package_names_each_once(packages: list[str]) -> None:
    assert {"busybox-static", "uidmap", "python3-venv", "git", "make", "gcc", "iproute2", "nftables"} <= set(packages)
    assert all(re.fullmatch("[a-z0-9][a-z0-9+.-]+", package) for package in packages)
    assert len(packages) == len(set(packages))


@pytest.mark.skipif(not shutil.which("dpkg"), reason="not Debian or Ubuntu: no dpkg to compare with")
def test_check_says_of_this_machine_what_dpkg_says(packages: list[str]) -> None:
    missing = [p for p in packages if "Status: install ok installed" not in run("dpkg", "--status", p).stdout]
    done = run(ROOT / "vm" / "provision.sh", "--check")
    assert done.returncode == (1 if missing else 0)
    assert done.stdout == ""
    assert (f"missing: {' '.join(missing)};" in done.stderr) == bool(missing)


def test_nothing_is_done_where_nothing_is_missing(machine: Machine, packages: list[str]) -> None:
    machine.has(*packages)
    for user in (NOBODY, 0):
        if user == 0 and os.geteuid() != 0:
            continue
        done = machine.run(user=user)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.calls() == []


def test_who_may_not_install_is_told_what_and_how(machine: Machine, packages: list[str]) -> None:
    machine.has(*[p for p in packages if p not in ("uidmap", "gcc")])
    done = machine.run()
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "missing: uidmap gcc;" in line
    assert "apt-get install --no-install-recommends uidmap gcc" in line
    assert machine.calls() == []


def test_check_installs_nothing_even_where_it_could(machine: Machine) -> None:
    machine.has()
    machine.has_sudo()
    done = machine.run("--check")
    assert done.returncode == 1
    assert "busybox-static" in done.stderr
    assert machine.calls() == []


def test_root_installs_what_is_missing_once_and_is_asked_nothing(machine: Machine, packages: list[str]) -> None:
    machine.has(*[p for p in packages if p not in ("uidmap", "gcc")])
    expected = [
        "apt-get update -q [noninteractive]",
        "apt-get install -y -q --no-install-recommends uidmap gcc [noninteractive]",
    ]
    for _ in range(2):
        done = machine.run(user=0)
        assert done.returncode == 0, done.stderr
        assert machine.calls() == expected


def test_sudo_without_a_password_will_do(machine: Machine, packages: list[str]) -> None:
    machine.has(*packages[1:])
    machine.has_sudo()
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert f"apt-get install -y -q --no-install-recommends {packages[0]} [noninteractive]" in machine.calls()


def test_an_apt_that_fails_or_does_nothing_is_an_error_that_names_the_packages(machine: Machine) -> None:
    machine.has()
    for failure in ("exit 100", "exit 0"):
        script(machine.bin / "apt-get", failure)
        done = machine.run(user=0)
        assert done.returncode == 1
        assert "missing: busybox-static uidmap" in done.stderr


def test_a_distribution_without_dpkg_gets_the_list(machine: Machine, packages: list[str]) -> None:
    (machine.bin / "dpkg-query").unlink()
    done = machine.run()
    assert done.returncode == 1
    assert " ".join(packages) in done.stderr


def test_an_unknown_option_installs_nothing(machine: Machine) -> None:
    machine.has()
    done = machine.run("--chek", user=os.geteuid())
    assert done.returncode == 2
    assert "usage:" in done.stderr
    assert machine.calls() == []


# --- Makefile -------------------------------------------------------------------------------------------------------


def test_help_says_what_each_target_does() -> None:
    lines = run("make").stdout.splitlines()
    assert [line.split()[1] for line in lines] == TARGETS
    assert all(len(line.split()) > 3 for line in lines)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout with the real Makefile, where Python, pip and provisioning only write down that they were called."""
    directory = tmp_path / "checkout"
    for name in ("pyproject.toml", "constraints.txt", "minicontainer/cli/launcher.py"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).touch()
    shutil.copy(ROOT / "Makefile", directory)
    script(directory / "vm" / "provision.sh", "echo provision >>log")
    script(
        directory / "python",
        """
        echo "$@" >>log
        mkdir -p .venv/bin
        printf '#!/bin/sh\\necho "$@" >>log\\n' >.venv/bin/python
        chmod +x .venv/bin/python
        """,
    )
    return directory


def setup(project: Path) -> list[str]:
    """Run `make setup` and return what was called; twice, because the second time must call nothing."""
    log = project / "log"
    log.write_text("")
    done = run("make", "setup", f"PYTHON={project / 'python'}", cwd=project)
    assert done.returncode == 0, done.stderr
    called = log.read_text().splitlines()
    again = run("make", "setup", f"PYTHON={project / 'python'}", cwd=project)
    assert again.returncode == 0, again.stderr
    assert log.read_text().splitlines() == called
    return called


def test_setup_makes_everything_once(project: Path) -> None:
    called = setup(project)
    assert called[:2] == ["provision", "-m venv --clear .venv"]
    assert called[3].endswith("-c constraints.txt --no-build-isolation -e .[dev,grading,vm]")
    assert called[4] == "-I minicontainer/cli/launcher.py .venv/bin"
    assert called[5].startswith("-m compileall -q ")


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt", "vm/provision.sh"])
def test_setup_is_done_again_when_what_it_installs_has_changed(project: Path, changed: str) -> None:
    setup(project)
    later = (project / ".venv" / "compiled").stat().st_mtime_ns + 10**9
    os.utime(project / changed, ns=(later, later))
    os.utime(project / ".venv" / "installed-in", ns=(later - 1, later - 1))
    log = project / "log"
    log.write_text("")
    done = run("make", "setup", f"PYTHON={project / 'python'}", cwd=project)
    assert done.returncode == 0, done.stderr
    assert log.read_text().splitlines()[:2] == ["provision", "-m venv .venv"]


def test_a_changed_source_is_compiled_and_nothing_installed(project: Path) -> None:
    setup(project)
    later = (project / ".venv" / "compiled").stat().st_mtime_ns + 10**9
    source = project / "minicontainer" / "__init__.py"
    source.touch()
    os.utime(source, ns=(later, later))
    log = project / "log"
    log.write_text("")
    assert run("make", "setup", cwd=project).returncode == 0
    assert [line.split()[:2] for line in log.read_text().splitlines()] == [["-m", "compileall"]]


def test_a_checkout_that_was_copied_makes_its_own_environment(project: Path) -> None:
    setup(project)
    copy = Path(shutil.copytree(project, project.with_name("copy"), symlinks=True))
    assert "-m venv --clear .venv" in setup(copy)


def test_setup_goes_on_without_system_packages_and_says_so(project: Path) -> None:
    script(project / "vm" / "provision.sh", "echo 'missing: gcc' >&2\nexit 1")
    done = run("make", "setup", f"PYTHON={project / 'python'}", cwd=project)
    assert done.returncode == 0
    assert "missing: gcc" in done.stderr
    assert "minicontainer check" in done.stderr


def test_setup_without_a_python_says_how_to_name_one(project: Path) -> None:
    done = run("make", "setup", "PYTHON=", cwd=project)
    assert done.returncode != 0
    assert "PYTHON=/path" in done.stderr
    assert not (project / ".venv").exists()


def test_the_python_found_is_an_interpreter_and_no_shim(project: Path) -> None:
    shim = script(project / "shims" / "python3", f'exec {sys.executable} "$@"')
    found = run("make", "--eval=found:; @echo $(PYTHON)", "found", path=shim.parent, cwd=project).stdout.strip()
    assert found != str(shim)
    with Path(found).open("rb") as file:
        assert file.read(4) == b"\x7fELF"


@pytest.fixture
def tools(project: Path) -> Path:
    """The log of a project that is set up, and whose other tools too only write down that they were called."""
    setup(project)
    for name in ("ruff", "mypy", "minicontainer"):
        script(project / ".venv" / "bin" / name, f'echo "{name} $*" >>log')
    log = project / "log"
    log.write_text("")
    return log


def test_pytest_comes_last_and_is_given_the_arguments(tools: Path) -> None:
    done = run("make", "test", "ARGS=-k 'uts or pid'", cwd=tools.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    *lint, last = tools.read_text().splitlines()
    assert lint == ["ruff check --quiet", "ruff format --check --quiet", "mypy --no-error-summary"]
    assert last == "-m pytest -k uts or pid"


def test_the_tests_of_the_guest_are_given_the_arguments(tools: Path) -> None:
    done = run("make", "test-v2", "ARGS=-k 'memory or cpu'", cwd=tools.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert tools.read_text().splitlines() == ["-m vm.guest_tests -k memory or cpu"]


def test_the_lab_opens_on_a_host_that_was_checked(tools: Path) -> None:
    assert run("make", "lab", "ARGS=--check", cwd=tools.parent).returncode == 0
    assert tools.read_text().splitlines() == ["minicontainer check", "-m labs.serve --check"]


def test_the_lab_does_not_open_on_a_host_that_lacks_something(tools: Path) -> None:
    script(tools.parent / ".venv" / "bin" / "minicontainer", "echo 'user namespaces: no'\nexit 1")
    done = run("make", "lab", cwd=tools.parent)
    assert done.returncode != 0
    assert "user namespaces: no" in done.stdout
    assert "lacks what the labs need" in done.stderr
    assert tools.read_text() == ""


# --- the lock -------------------------------------------------------------------------------------------------------


def test_the_lock_pins_everything_that_setup_installs() -> None:
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line.startswith("#"):
            name, version = line.split("==")
            pinned[name.lower().replace("_", "-")] = version
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = declared["project"]["optional-dependencies"]
    wanted = declared["build-system"]["requires"] + declared["project"]["dependencies"]
    for requirement in map(Requirement, wanted + extras["dev"] + extras["grading"] + extras["vm"]):
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), requirement


# --- the launcher ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("directory", ["short", "x" * 120, "with a space"])
def test_the_launcher_runs_the_command_line_without_site(tmp_path: Path, directory: str) -> None:
    checkout = tmp_path / directory
    (checkout / "minicontainer").mkdir(parents=True)
    (checkout / "minicontainer" / "__init__.py").touch()
    (checkout / "minicontainer" / "start.py").write_text(
        "import json, sys\n"
        "def start():\n"
        "    import lately\n"
        "    print(json.dumps([sys.argv[1:], sys.flags.isolated, sys.flags.no_site, lately.__file__]))\n"
        "    sys.exit(7)\n"
    )
    packages = checkout / "site-packages"
    packages.mkdir()
    (packages / "lately.py").touch()
    (packages / "spy.pth").write_text("import sys; sys.exit('a .pth file was run')\n")
    interpreter = checkout / "python3"
    interpreter.symlink_to(Path(sys.executable).resolve())
    command = checkout / "minicontainer-command"

    launcher.write(command, "start", str(interpreter), [str(checkout), str(packages)])

    done = run(command, "run", "a b", "", cwd=tmp_path)
    assert done.stderr == ""
    assert json.loads(done.stdout) == [["run", "a b", ""], 1, 1, str(packages / "lately.py")]
    assert done.returncode == 7
    assert sorted(entry.name for entry in checkout.iterdir() if "command" in entry.name) == [command.name]


def test_a_short_path_costs_no_shell() -> None:
    assert launcher.first_lines("/srv/course/.venv/bin/python") == "#!/srv/course/.venv/bin/python -IS\n"
    assert launcher.first_lines("/" + "x" * 120).startswith("#!/bin/sh\n")


# --- .ci/run --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", ["", "test", "v2", "v1"])
def test_ci_runs_the_suite_here_and_in_two_guests_and_forgets_no_failure(tmp_path: Path, failing: str) -> None:
    """In the root of the checkout; one that fails does not keep the others from running."""
    program = """
    world=${LAB_CGROUP-v2}
    [ "$*" = test-v2 ] || world=test
    echo "make $* in $PWD: $world"
    [ "$world" != "$FAILING" ] || exit 5
    """
    script(tmp_path / "make", program)
    done = run(ROOT / ".ci" / "run", path=tmp_path, cwd=tmp_path, FAILING=failing)
    assert done.stdout.splitlines() == [
        f"make test in {ROOT}: test",
        f"make test-v2 in {ROOT}: v2",
        f"make test-v2 in {ROOT}: v1",
    ]
    assert done.stderr == ""
    assert done.returncode == (5 if failing else 0)
