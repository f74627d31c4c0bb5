"""What one deploys: containers of a Debian with servers of its packages, and one that boots its own systemd.

The image is made once, of the packages of the host's own mirror (half a minute), and all the containers here stand on
it. DEBIAN.md has the same for a reader to type.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from minicontainer.engine import Engine
from minicontainer.linux.cgroups import hierarchies
from tests.cli.test_systemd import only_v2
from tests.cli.test_terminal import terminal
from tests.command import DEADLINE, Command, command_line, needs_root, wait_until
from tests.neighbourhood import Host

pytestmark = needs_root

PACKAGES = "nginx-light,redis-server,openssh-server,python3-minimal,libpython3-stdlib,systemd-sysv"

APPLICATION = """
import http.server, socket
def redis(*words):
    with socket.create_connection(("db", 6379)) as line:
        line.sendall(b"*%d\\r\\n" % len(words) + b"".join(b"$%d\\r\\n%s\\r\\n" % (len(one), one) for one in words))
        return line.makefile("rb").readline()[1:].strip()
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"visitor %s\\n" % redis(b"INCR", b"visitors"))
http.server.ThreadingHTTPServer(("", 8000), Page).serve_forever()
"""

FRONT = """
events {}
http { server { listen 80; location / { proxy_pass http://app:8000; } } }
"""


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with the image debian:servers."""
    root = tmp_path_factory.mktemp("debian")
    words = ["image", "make", "--variant", "essential", "--include", PACKAGES, "debian", "debian:servers"]
    left = signal.alarm(0)  # a test that hangs is ended; this one may take what packages take
    try:
        made = Command(root)(*words, timeout=20 * DEADLINE)
    finally:
        signal.alarm(left)
    if made.returncode and "has failed" in made.stderr and ("download" in made.stderr or "fetch" in made.stderr):
        pytest.skip(f"no mirror with Debian's packages answers here: {made.stderr.strip()}")
    assert made.returncode == 0, made.stderr
    return root


@pytest.fixture
def debian(store: Path) -> Iterator[Command]:
    """The command there; at the end of the test no container or volume is left."""
    command = Command(store)
    yield command
    for config, _ in Engine(store).containers():
        command("rm", "-fv", config.id)
    said(command("volume", "prune", "--all"))
    assert command.containers() == []


@pytest.fixture
def on(host: Host, debian: Command) -> Iterator[Command]:
    """The same on a host of the test's own, with docker's default for the network, and the network "web"."""
    command = replace(debian, words=[*host.line(), "env", "MINICONTAINER_NETWORK=bridge", *command_line()])
    said(command("network", "create", "web"))
    yield command
    for config, _ in Engine(debian.root).containers():
        command("rm", "-fv", config.id)
    said(command("network", "rm", "web"))


def said(done: subprocess.CompletedProcess[str], status: int = 0) -> str:
    """What a command that ends so has printed."""
    assert done.returncode == status, done
    return done.stdout


def page(host: Host, port: int) -> str | None:
    """What is served there to somebody on the host; None: nothing yet."""
    with host.entered(), contextlib.suppress(OSError), urllib.request.urlopen(
        f"http://127.0.0.1:{port}/", timeout=DEADLINE
    ) as answer:  # fmt: skip
        return str(answer.read().decode())
    return None


# Containers, one server each


def test_three_servers_by_name(on: Command, host: Host, tmp_path: Path) -> None:
    """nginx in front of a Python application that counts in Redis; its data outlive it, and its name its address."""
    (tmp_path / "app.py").write_text(APPLICATION)
    (tmp_path / "nginx.conf").write_text(FRONT)
    common = ("run", "-d", "--network", "web", "--name")
    db = [*common, "db", "-v", "data:/data", "debian:servers", "redis-server", "--bind", "0.0.0.0",
          "--protected-mode", "no", "--dir", "/data", "--appendonly", "yes"]  # fmt: skip
    said(on(*db))
    said(on(*common, "app", "-v", f"{tmp_path}:/srv:ro", "debian:servers", "python3", "/srv/app.py"))
    said(on("exec", "app", "getent", "hosts", "db"))
    said(on(*common, "front", "-p", "8080:80", "-v", f"{tmp_path}/nginx.conf:/etc/nginx/nginx.conf:ro",
            "debian:servers", "nginx", "-g", "daemon off;"))  # fmt: skip
    seen = wait_until(lambda: page(host, 8080), "the three serve a page")
    assert seen == "visitor 1\n"
    assert page(host, 8080) == "visitor 2\n"
    said(on("stop", "db"))
    said(on("rm", "db"))
    said(on("run", "-d", "--network", "web", "--name", "between", "debian:servers", "sleep", "600"))  # has its address
    said(on(*db))
    assert wait_until(lambda: page(host, 8080), "and again, from elsewhere") == "visitor 3\n"
    lower = {json.dumps(known["Config"]["layers"]) for known in json.loads(said(on("inspect", "db", "app", "front")))}
    assert len(lower) == 1, "they do not stand on the same layers"


def test_logging_in_by_ssh(on: Command, host: Host, tmp_path: Path) -> None:
    """With a key of the host's, through a published port, to a server whose own key is known from its container."""
    key, known = tmp_path / "key", tmp_path / "known_hosts"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=DEADLINE)
    server = "mkdir -p /run/sshd; exec /usr/sbin/sshd -D -e"
    said(on("run", "-d", "--name", "box", "--hostname", "box", "--network", "web", "-p", "2222:22",
            "-v", f"{key}.pub:/root/.ssh/authorized_keys:ro", "debian:servers", "sh", "-c", server))  # fmt: skip
    kind, own = said(on("exec", "box", "cat", "/etc/ssh/ssh_host_ed25519_key.pub")).split()[:2]
    known.write_text(f"[127.0.0.1]:2222 {kind} {own}\n")
    options = ["-F", "none", "-i", key, "-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes",
               "-o", "BatchMode=yes", "-o", f"ConnectTimeout={DEADLINE:.0f}", "-p", "2222", "root@127.0.0.1"]  # fmt: skip
    wait_until(lambda: "listening" in on("logs", "box").stderr, "sshd listens")
    look = "hostname; readlink /proc/self/ns/pid /proc/self/ns/net; tty; exit 5"
    login = subprocess.run(host.line("ssh", "-tt", *options, look), stdin=subprocess.DEVNULL, capture_output=True,
                           text=True, timeout=DEADLINE)  # fmt: skip
    assert login.returncode == 5, login
    inside = said(on("exec", "box", "readlink", "/proc/self/ns/pid", "/proc/self/ns/net")).split()
    name, *links, tty = login.stdout.split()
    assert (name, links) == ("box", inside)
    assert tty.startswith("/dev/pts/")
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True, timeout=DEADLINE)
    stranger = [other if word == key else word for word in options]
    refused = subprocess.run(host.line("ssh", *stranger, "true"), stdin=subprocess.DEVNULL, capture_output=True,
                             text=True, timeout=DEADLINE)  # fmt: skip
    assert refused.returncode == 255 and "Permission denied" in refused.stderr


# One container, a whole system

LOGIN = r"box login: "
NO_SERVERS = "systemctl --quiet mask ssh nginx redis-server; echo root:secret | chpasswd; exec /sbin/init"
"""systemctl does that without a systemd that runs."""


def booted(command: Command, times: int = 1) -> None:
    """Wait until a login prompt has come so many times to the console of "box"."""

    def prompts() -> bool:
        log = command("logs", "box").stdout
        assert "exited" not in (status := command("ps", "-a", "--format", "{{.Status}}").stdout), (status, log)
        return len(re.findall(LOGIN, log)) >= times

    wait_until(prompts, "there is a login prompt")


BOX = ("--systemd", "always", "--network", "none", "--name", "box", "--hostname", "box", "debian:servers", "sh", "-c",
       NO_SERVERS)  # fmt: skip


def test_systemd_in_the_foreground(debian: Command) -> None:
    """To a login prompt, through it, again after a reboot from inside; and a halt from outside."""
    with terminal(debian, "run", "-it", "--rm", *BOX) as window:
        window.expect(LOGIN)
        window.type("root\n")
        window.expect("Password: ")
        window.type("secret\n")
        window.expect("root@box:~# ")
        window.type("cat /proc/1/comm; tty; mkdir /run/x && echo $((6 * 7))\n")
        window.expect(r"systemd\r\n/dev/(pts/0|console)\r\n42\r\n")
        window.expect("root@box:~# ")
        window.type("reboot\n")
        window.expect("Rebooting")
        window.expect(LOGIN)
        assert debian("exec", "box", "ls", "/run/x").returncode != 0, "/run is as it was before the reboot"
        said(debian("stop", "box"))
        window.expect("Halting system")
        assert window.end() == 0


def test_systemd_by_itself(debian: Command) -> None:
    """Reboot from inside and from outside, halt from both."""
    said(debian("run", "-dt", *BOX))
    booted(debian)
    units = said(debian("exec", "box", "systemctl", "list-units", "--failed", "--no-legend", "--plain"))
    assert units.strip() == ""
    groups = said(debian("exec", "box", "systemctl", "show", "--property=ControlGroup", "console-getty"))
    assert groups == "ControlGroup=/system.slice/console-getty.service\n"
    said(debian("exec", "box", "systemctl", "reboot"))
    booted(debian, 2)
    said(debian("restart", "box"))
    booted(debian, 3)
    log = said(debian("logs", "box"))
    assert (log.count("Rebooting."), log.count("Halting system.")) == (1, 1)
    said(debian("exec", "box", "systemctl", "poweroff"))
    assert said(debian("wait", "box")) == "0\n"
    assert "exited (0)" in said(debian("ps", "-a"))


@pytest.mark.skipif(not any(tree.version == 1 for tree in hierarchies()), reason="this host has one tree anyway")
def test_systemd_where_there_is_one_tree(debian: Command) -> None:
    """Version 2: whoever comes later comes to where systemd is, for the top takes no processes any more."""
    command = only_v2(debian)
    said(command("run", "-dt", *BOX))
    booted(command)
    mounts = said(command("exec", "box", "grep", "cgroup", "/proc/mounts")).splitlines()
    assert [line.split()[2] for line in mounts] == ["cgroup2"]
    assert "0::/init.scope\n" in said(command("exec", "box", "cat", "/proc/self/cgroup"))
    groups = said(command("exec", "box", "systemctl", "show", "--property=ControlGroup", "console-getty"))
    assert groups == "ControlGroup=/system.slice/console-getty.service\n"
    said(command("stop", "box"))
    assert "exited (0)" in said(command("ps", "-a"))
