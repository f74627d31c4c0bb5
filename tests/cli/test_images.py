"""Images on the command line: made, loaded, run, listed, named, removed, pruned, looked through."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from minicontainer.images.busybox import static_busybox
from tests.command import Command, needs_root, one_line, wait_until
from tests.host_state import HostUnchanged
from tests.images.made import Made, digest_of

pytestmark = needs_root

QUIET = ("--network", "none")
PROGRAMS = ("sh", "id", "cat", "pwd", "env", "sleep", "ls", "stat", "echo", "true")
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv/web:/bin/sh\n"
GROUP = b"root:x:0:\nweb:x:34:\nlog:x:44:web,other\nadm:x:55:root\n"


@pytest.fixture
def own(tmp_path: Path) -> Command:
    """The command with images of its own: for tests that remove some."""
    return Command(tmp_path / "own")


def userland(*above: dict[str, bytes | str], **settings: Any) -> Made:
    """An image in which a shell lives, with more layers above that."""
    options = {name: settings.pop(name) for name in ("architecture", "compress", "history") if name in settings}
    programs: dict[str, bytes | str] = {f"bin/{name}": "busybox" for name in PROGRAMS}
    below = {"bin/": b"", "etc/": b"", "tmp/": b"", "proc/": b"", "dev/": b"", "sys/": b"", "root/": b"",
             "bin/busybox": Path(static_busybox()).read_bytes(), **programs, "etc/passwd": PASSWD, "etc/group": GROUP}  # fmt: skip
    return Made([below, *above], {"Cmd": ["sh", "-c", "echo $GREETING from $(pwd)"], **settings}, **options)


def load(command: Command, made: Made, *names: str) -> str:
    done = subprocess.run(command.line("load"), input=made.dockers(*names), capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b""), done
    return done.stdout.decode()


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def listed(command: Command) -> list[tuple[str, str]]:
    return sorted((row["Repository"], row["Tag"]) for row in json.loads(said(command("images", "--json"))))


# What a container takes from its image


def test_an_image_is_loaded_and_run(own: Command, host_unchanged: HostUnchanged) -> None:
    made = userland({"srv/": b"", "srv/data": b"from the second layer\n"}, Env=["GREETING=hello", "PATH=/bin"],
                    WorkingDir="/srv", ExposedPorts={"80/tcp": {}}, Labels={"a": "b"}, Volumes={"/data": {}}, compress=True)  # fmt: skip
    with host_unchanged():
        assert load(own, made, "me/web:1") == "Loaded image: me/web:1\n"
        assert said(own("run", "--rm", *QUIET, "me/web:1")) == "hello from /srv\n"
        assert said(own("run", "--rm", *QUIET, "-e", "GREETING=hi", "-w", "/tmp", "me/web:1")) == "hi from /tmp\n"
        assert said(own("run", "--rm", *QUIET, "me/web:1", "cat", "data")) == "from the second layer\n"
        assert said(own("run", "--rm", *QUIET, made.id[7:19], "pwd")) == "/srv\n"
        said(own("create", "--name", "c1", "-l", "c=d", "me/web:1"))
        [shown] = json.loads(said(own("inspect", "c1")))
        assert (shown["Image"], shown["ImageId"]) == ("me/web:1", made.id)
        config = shown["Config"]
        assert (config["exposed_ports"], config["image_volumes"]) == (["80/tcp"], ["/data"])
        assert config["labels"] == [["a", "b"], ["c", "d"]]
        assert "me/web:1" in said(own("ps", "-a"))
        own("rm", "c1")


@pytest.mark.parametrize(
    ("settings", "words", "told"),
    [
        ({"Entrypoint": ["echo", "a"], "Cmd": ["b"]}, [], "a b"),
        ({"Entrypoint": ["echo", "a"], "Cmd": ["b"]}, ["c", "d"], "a c d"),
        ({"Entrypoint": ["echo", "a"], "Cmd": ["b"]}, ["--entrypoint", "echo"], ""),
        ({"Entrypoint": ["echo", "a"], "Cmd": ["b"]}, ["--entrypoint", "echo", "c"], "c"),
        ({"Entrypoint": ["nope"], "Cmd": ["echo", "b"]}, ["--entrypoint", "", "echo", "c"], "c"),
    ],
)
def test_entrypoint_and_command(own: Command, settings: dict[str, Any], words: list[str], told: str) -> None:
    load(own, userland(Env=["PATH=/bin"], **settings), "x:1")
    options, rest = (words[:2], words[2:]) if words[:1] == ["--entrypoint"] else ([], words)
    assert said(own("run", "--rm", *QUIET, *options, "x:1", *rest)) == f"{told}\n"


def test_an_image_without_a_command(own: Command) -> None:
    load(own, userland(Cmd=None), "x:1")
    assert "no command" in one_line(own("run", "--rm", *QUIET, "x:1").stderr)


@pytest.mark.parametrize(
    ("user", "option", "told"),
    [
        ("web", None, "33 34 34 44 /srv/web"),
        ("33", None, "33 34 34 44 /srv/web"),
        ("web:adm", None, "33 55 55 /srv/web"),
        ("7:8", None, "7 8 8 /"),
        ("", None, "0 0 0 55 /root"),
        ("web", "root", "0 0 0 55 /root"),
        ("", "web", "33 34 34 44 /srv/web"),
        ("web", "7:8", "7 8 8 /"),
        ("web", "0", "0 0 0 55 /root"),
    ],
)
def test_who_the_program_is(own: Command, user: str, option: str | None, told: str) -> None:
    load(own, userland(User=user, Env=["PATH=/bin"]), "x:1")
    script = "echo $(id -u) $(id -g) $(id -G) $HOME"
    options = [] if option is None else ["--user", option]
    expected = told if user or option else "0 0 0 /root"
    assert said(own("run", "--rm", *QUIET, *options, "x:1", "sh", "-c", script)) == f"{expected}\n"


def test_a_user_is_looked_up_in_the_topmost_layer_that_has_the_file(own: Command) -> None:
    later = {"etc/": b"", "etc/passwd": b"web:x:77:78::/w:/bin/sh\n"}
    load(own, userland(later, User="web", Env=["PATH=/bin"]), "x:1")
    assert said(own("run", "--rm", *QUIET, "x:1", "id", "-u")) == "77\n"


@pytest.mark.parametrize("trap", ["passwd", "etc"])
def test_the_hosts_users_are_never_looked_at(own: Command, tmp_path: Path, trap: str) -> None:
    """An /etc/passwd, or an /etc, that is a link out of the root."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("web:x:66:66::/:/bin/sh\n")
    above: dict[str, bytes | str] = (
        {"etc/": b"", "etc/passwd": f"{tmp_path}/etc/passwd"} if trap == "passwd"
        else {".wh.etc": b"", "etc": f"{tmp_path}/etc"}
    )  # fmt: skip
    load(own, userland(above, User="web", Env=["PATH=/bin"]), "x:1")
    assert 'no user "web"' in one_line(own("run", "--rm", *QUIET, "x:1", "id").stderr)
    assert own.containers() == []


@pytest.mark.parametrize(
    ("user", "told"), [("nobody-knows", "no user"), ("web:nobody-knows", "no group"), ("99999999999", "no user")]
)
def test_a_user_that_is_not_there(own: Command, user: str, told: str) -> None:
    load(own, userland(User=user), "x:1")
    assert told in one_line(own("run", "--rm", *QUIET, "x:1", "id").stderr)


def test_the_working_directory_is_made_inside_the_root_only(own: Command, tmp_path: Path) -> None:
    load(own, userland({"out": str(tmp_path)}, WorkingDir="/out/a/b", Env=["PATH=/bin"]), "x:1")
    assert said(own("run", "--rm", *QUIET, "x:1", "pwd")).endswith("/a/b\n")
    assert not (tmp_path / "a").exists()


def test_stop_sends_the_images_signal(own: Command) -> None:
    load(own, userland(StopSignal="SIGUSR1", Env=["PATH=/bin"]), "x:1")
    script = "trap 'echo usr1; exit 7' USR1; echo up; while :; do sleep 0.1; done"
    said(own("run", "-d", "--name", "c1", *QUIET, "x:1", "sh", "-c", script))
    wait_until(lambda: "up" in own("logs", "c1").stdout, "it is up")
    said(own("stop", "-t", "20", "c1"))
    assert own("logs", "c1").stdout == "up\nusr1\n" and "exited (7)" in own("ps", "-a").stdout
    own("rm", "c1")


def test_an_image_for_another_machine(own: Command) -> None:
    load(own, userland(architecture="s390x", Env=["PATH=/bin"]), "x:1")
    done = own("run", "--rm", *QUIET, "x:1", "id")
    assert done.returncode == 125 and "is for linux/s390x, and this machine is" in one_line(done.stderr)
    assert own("run", "--rm", *QUIET, "--platform", "linux/s390x", "x:1", "echo", "tried").stdout == "tried\n"
    done = own("run", "--rm", *QUIET, "--pull", "never", "--platform", "linux/arm64", "x:1", "id")
    assert done.returncode == 125 and "no image" in one_line(done.stderr)


def test_an_image_that_is_not_here(own: Command) -> None:
    for command in (["run", "--pull", "never"], ["create", "--pull", "never"]):
        done = own(*command, *QUIET, "nope:3", "true")
        assert done.returncode == 125 and one_line(done.stderr).endswith("minicontainer pull nope:3")
    for command in (["rmi"], ["history"], ["image", "inspect"], ["save"]):
        assert 'no image "nope:3"' in one_line(own(*command, "nope:3").stderr)
    assert "cannot be an image" in one_line(own("run", *QUIET, "No Pe", "true").stderr)


def test_a_container_on_a_hundred_layers(own: Command) -> None:
    layers: list[dict[str, bytes | str]] = [
        {f"file{number}": str(number).encode(), "same": str(number).encode()} for number in range(100)
    ]
    load(own, userland(*layers, Env=["PATH=/bin"]), "x:1")
    assert said(own("run", "--rm", *QUIET, "x:1", "cat", "/file0", "/file99", "/same")) == "09999"


# Names


def test_names_are_given_and_taken(own: Command) -> None:
    said(own("run", "--rm", *QUIET, "busybox", "true"))
    said(own("tag", "busybox", "localhost:5000/box:2"))
    assert listed(own) == [("busybox", "latest"), ("localhost:5000/box", "2")]
    assert said(own("rmi", "busybox")) == "Untagged: busybox:latest\n"
    assert said(own("run", "--rm", *QUIET, "localhost:5000/box:2", "echo", "up")) == "up\n"
    assert said(own("rmi", "localhost:5000/box:2")).splitlines()[1].startswith("Deleted: sha256:")
    assert listed(own) == [] and os.listdir(own.root / "layers") in ([], ["lock"])
    assert os.listdir(own.root / "images/blobs/sha256") == []


def test_an_id_with_several_names_is_removed_with_force_only(own: Command) -> None:
    load(own, userland(), "x:1", "y:1")
    identity = userland().id[7:19]
    assert "several names, x:1, y:1" in one_line(own("rmi", identity).stderr)
    assert said(own("rmi", "-f", identity)).count("Untagged") == 2


def test_a_name_gets_another_meaning(own: Command) -> None:
    first, second = userland({"n": b"1"}, Env=["PATH=/bin"]), userland({"n": b"2"}, Env=["PATH=/bin"])
    load(own, first, "x:1")
    said(own("create", "--name", "c1", *QUIET, "x:1", "cat", "/n"))
    load(own, second, "x:1")
    assert said(own("run", "--rm", *QUIET, "x:1", "cat", "/n")) == "2"
    assert said(own("start", "-a", "c1")) == "1"  # a container keeps what it was made of
    assert listed(own) == [("<none>", "<none>"), ("x", "1")]
    assert "Deleted" not in said(own("image", "prune"))
    assert said(own("start", "-a", "c1")) == "1"
    own("rm", "c1")
    assert f"Deleted: {first.id}" in said(own("image", "prune"))
    assert listed(own) == [("x", "1")]
    assert said(own("run", "--rm", *QUIET, "x:1", "cat", "/n")) == "2"


@pytest.mark.parametrize("running", [False, True])
def test_what_a_container_uses_is_not_removed(own: Command, running: bool) -> None:
    load(own, userland({"n": b"1"}, Env=["PATH=/bin"]), "x:1")
    words = ["run", "-d"] if running else ["create"]
    said(own(*words, "--name", "c1", *QUIET, "x:1", "sleep", "60"))
    done = own("rmi", "x:1")
    assert done.returncode == 1 and "is used by container c1" in one_line(done.stderr)
    assert said(own("rmi", "-f", "x:1")) == "Untagged: x:1\n"
    assert listed(own) == [("<none>", "<none>")]
    assert "remove those first" in one_line(own("rmi", "-f", userland({"n": b"1"}, Env=["PATH=/bin"]).id).stderr)
    for prune in (["image", "prune", "-a"], ["image", "prune"]):
        assert "Deleted" not in said(own(*prune))
    if running:
        assert said(own("exec", "c1", "cat", "/n")) == "1"
    said(own("rm", "-f", "c1"))
    assert "Deleted" in said(own("image", "prune"))
    assert not [name for name in os.listdir(own.root / "layers") if len(name) == 64]


def test_layers_in_common_stay_while_one_needs_them(own: Command) -> None:
    a, b = userland({"n": b"1"}, Env=["PATH=/bin"]), userland({"n": b"2"}, Env=["PATH=/bin"])
    load(own, a, "a:1")
    load(own, b, "b:1")
    assert len([name for name in os.listdir(own.root / "layers") if len(name) == 64]) == 3
    said(own("rmi", "a:1"))
    assert {name for name in os.listdir(own.root / "layers") if len(name) == 64} == {
        digest_of(tar)[7:] for tar in b.tars
    }
    assert said(own("run", "--rm", *QUIET, "b:1", "cat", "/n")) == "2"


def test_prune_all_and_what_it_frees(own: Command) -> None:
    load(own, userland(), "x:1")
    assert said(own("image", "prune")) == "Freed: 0 B\n"
    freed = said(own("image", "prune", "-a")).splitlines()
    assert freed[:2] == ["Untagged: x:1", f"Deleted: {userland().id}"] and re.fullmatch(r"Freed: [\d.]+ MiB", freed[2])


def test_system_prune(own: Command) -> None:
    load(own, userland(Env=["PATH=/bin"]), "x:1")
    said(own("create", "--name", "c1", *QUIET, "x:1", "true"))
    said(own("run", "-d", "--name", "c2", *QUIET, "x:1", "sleep", "60"))
    assert "Removed container: c1" in said(own("system", "prune", "-f"))
    assert "c2" in own("ps").stdout and listed(own) == [("x", "1")]
    said(own("rm", "-f", "c2"))
    assert "Deleted" in said(own("system", "prune", "-a", "-f"))


def test_system_prune_asks_and_nobody_to_ask_is_no(own: Command) -> None:
    load(own, userland(Env=["PATH=/bin"]), "x:1")
    said(own("create", "--name", "c1", *QUIET, "x:1", "true"))
    done = own("system", "prune")
    assert done.returncode == 125 and "say -f" in one_line(done.stderr) and "c1" in own("ps", "-a").stdout


def test_nothing_is_collected_while_a_snapshot_cannot_be_read(own: Command) -> None:
    load(own, userland(Env=["PATH=/bin"]), "x:1")
    said(own("create", "--name", "c1", *QUIET, "x:1", "true"))
    said(own("snapshot", "c1"))
    [record] = own.root.glob("containers/*/snapshots/snap0.json")
    record.write_text("{")
    said(own("create", "--name", "c2", *QUIET, "x:1", "true"))
    said(own("snapshot", "c2"))
    before = sorted(os.listdir(own.root / "layers"))
    said(own("rm", "-s", "c2"))
    done = own("image", "prune", "-a")
    assert done.returncode == 125 and "snapshot rm c1 snap0" in one_line(done.stderr)
    said(own("system", "repair"))
    assert sorted(os.listdir(own.root / "layers")) == before, "c2's too: who can tell that it was not c1's"
    assert own("system", "df").returncode == 0
    said(own("snapshot", "rm", "c1", "snap0"))
    said(own("rm", "c1"))
    said(own("system", "repair"))
    assert not [name for name in os.listdir(own.root / "layers") if name.startswith("snap-")]


def test_system_prune_removes_clones_and_what_they_were_made_of(own: Command) -> None:
    load(own, userland(Env=["PATH=/bin"]), "x:1")
    said(own("create", "--name", "c1", *QUIET, "x:1", "true"))
    said(own("clone", "c1", "c2"))
    said(own("clone", "c2", "c3"))
    assert said(own("system", "prune", "-f")).startswith(
        "".join(f"Removed container: {name}\n" for name in ("c3", "c2", "c1"))
    )
    assert own.containers() == []


def test_many_at_the_same_time(own: Command, tmp_path: Path) -> None:
    """Four load two images that share a layer, two prune, and all that is left is whole."""
    made = [userland({"n": b"1"}, Env=["PATH=/bin"]), userland({"n": b"2"}, Env=["PATH=/bin"])]
    for number, one in enumerate(made):
        (tmp_path / f"{number}.tar").write_bytes(one.dockers(f"x{number}:1"))
    loads = [own.line("load", "-q", "-i", tmp_path / f"{number % 2}.tar") for number in range(4)]
    lines = [*loads, *[own.line("image", "prune")] * 2]
    processes = [subprocess.Popen(line, stdin=-3, stdout=-3, stderr=-1, text=True) for line in lines]
    errors = [process.communicate(timeout=90)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 6, errors
    assert errors[:4] == [""] * 4
    assert said(own("system", "check")) == ""
    for number in range(len(made)):
        assert said(own("run", "--rm", *QUIET, f"x{number}:1", "cat", "/n")) == str(number + 1)
    assert len([name for name in os.listdir(own.root / "layers") if len(name) == 64]) == 3


# Looking


def test_history_and_its_tree(own: Command) -> None:
    history = [{"created_by": "ADD root", "created": "2024-01-02T03:04:05.123456789Z"}, {"created_by": "ENV A=b", "empty_layer": True},
               {"created_by": "RUN touch \x1b[31m n"}]  # fmt: skip
    load(own, userland({"n": b"1"}, history=history), "a:1")
    load(own, userland({"n": b"2"}), "b:1")
    steps = json.loads(said(own("history", "--json", "a:1")))
    assert [step["created_by"] for step in steps] == ["RUN touch \x1b[31m n", "ENV A=b", "ADD root"]
    assert [bool(step["layer"]) for step in steps] == [True, False, True]
    lines = said(own("history", "a:1")).splitlines()
    assert "\x1b" not in "".join(lines) and "years ago" in lines[3]
    tree = said(own("history", "--tree")).splitlines()
    base = digest_of(userland({"n": b"1"}).tars[0])[7:19]
    assert (
        tree[0].startswith(base) and [line.startswith(("├─ ", "│  ", "└─ ", "   ")) for line in tree[1:]] == [True] * 4
    )
    assert sum("a:1" in line for line in tree) == sum("b:1" in line for line in tree) == 1
    assert sum(base in line for line in tree) == 1, "what they have in common is drawn once"
    assert "\x1b" not in "".join(tree)
    assert "b:1" not in said(own("history", "--tree", "a:1"))


def test_inspect(own: Command) -> None:
    made = userland(Env=["A=b"], User="web")
    load(own, made, "x:1")
    [shown] = json.loads(said(own("image", "inspect", "x:1")))
    assert (shown["Id"], shown["RepoTags"], shown["Config"]["User"]) == (made.id, ["x:1"], "web")
    assert shown["RootFS"]["Layers"] == [digest_of(tar) for tar in made.tars]
    assert Path(shown["Unpacked"][0], "bin/busybox").exists()


def test_df(own: Command) -> None:
    load(own, userland(Env=["PATH=/bin"]), "x:1")
    load(own, userland({"n": b"x" * 50000}), "y:1")
    said(own("create", "--name", "c1", *QUIET, "x:1", "true"))
    images, layers, containers = json.loads(said(own("system", "df", "--json")))
    assert (images["total"], images["active"]) == (2, 1) and 50000 < images["reclaimable"] < images["size"]
    assert (layers["total"], layers["active"]) == (2, 1) and containers["total"] == 1
    assert "RECLAIMABLE" in said(own("system", "df"))
    own("rm", "c1")


# Damage


def test_a_store_without_damage(own: Command) -> None:
    load(own, userland(), "x:1")
    said(own("create", "--name", "c1", *QUIET, "x:1", "true"))
    assert said(own("system", "check")) == ""


def test_a_flipped_bit_in_a_blob_is_found_and_mended(own: Command) -> None:
    made = userland({"n": b"1"}, Env=["PATH=/bin"])
    load(own, made, "x:1")
    for raw in (*made.layers, made.config):
        blob = own.root / "images/blobs/sha256" / digest_of(raw)[7:]
        content = bytearray(raw)
        content[len(raw) // 2] ^= 1
        blob.write_bytes(content)
        done = own("system", "check")
        assert (
            done.returncode == 1
            and f"blob {digest_of(raw)} is damaged: x:1" in done.stdout
            and "pull x:1" in done.stdout
        )
        assert "taken away" in own("system", "check", "--repair").stdout
        done = own("system", "check")
        assert done.returncode == 1 and f"blob {digest_of(raw)} is missing: x:1" in done.stdout
        load(own, made, "x:1")
        assert said(own("system", "check")) == ""
    assert said(own("run", "--rm", *QUIET, "x:1", "cat", "/n")) == "1"


@pytest.mark.parametrize("change", ["content", "mode", "more", "less"])
def test_a_layer_that_was_changed_is_found_and_unpacked_anew(own: Command, change: str) -> None:
    made = userland({"n": b"1"}, Env=["PATH=/bin"])
    load(own, made, "x:1")
    said(own("create", "--name", "c1", *QUIET, "x:1", "cat", "/n"))
    tree = own.root / "layers" / digest_of(made.tars[1])[7:] / "diff"
    if change == "content":
        with open(tree / "n", "r+b") as file:
            file.write(b"2")
    elif change == "mode":
        (tree / "n").chmod(0o600)
    elif change == "more":
        (tree / "m").touch()
    else:
        (tree / "n").unlink()
    done = own("system", "check")
    assert done.returncode == 1 and digest_of(made.tars[1])[7:] in done.stdout and "container c1" in done.stdout
    assert own("system", "check", "--repair").returncode == 0
    assert said(own("start", "-a", "c1")) == "1"
    assert said(own("system", "check")) == ""
    own("rm", "c1")


def test_paths_longer_than_the_kernel_takes(own: Command) -> None:
    deep = "/".join(["n" * 200] * 30)
    load(own, userland({f"{deep}/f": b"1"}, Env=["PATH=/bin"]), "x:1")
    assert said(own("run", "--rm", *QUIET, "x:1", "echo", "up")) == "up\n"
    assert said(own("system", "check")) == "" and "Layers" in said(own("system", "df"))
    assert "Deleted" in said(own("rmi", "x:1"))
    assert [name for name in os.listdir(own.root / "layers") if name != "lock"] == []


def test_a_container_that_has_made_very_deep_directories_is_removed(own: Command) -> None:
    deeper = "import os\nfor _ in range(3000): os.mkdir('nnnn'); os.chdir('nnnn')"
    load(own, userland(Env=["PATH=/bin"]), "x:1")
    said(own("create", "--name", "c1", *QUIET, "x:1", "true"))
    [upper] = own.root.glob("containers/*/upper")
    subprocess.run([sys.executable, "-Sc", deeper], cwd=upper, check=True, timeout=60)
    said(own("system", "df"))
    assert said(own("rm", "c1")) == "c1\n" and own.containers() == []


def test_nothing_is_removed_while_an_image_cannot_be_read(own: Command) -> None:
    made = userland()
    load(own, made, "x:1")
    load(own, userland({"n": b"1"}), "y:1")
    (own.root / "images/blobs/sha256" / digest_of(made.manifest)[7:]).unlink(missing_ok=True)
    [manifest] = [
        one["digest"]
        for one in json.loads((own.root / "images/index.json").read_text())["manifests"]
        if "x:1" in str(one)
    ]
    (own.root / "images/blobs/sha256" / manifest[7:]).unlink()
    before = sorted(os.listdir(own.root / "layers"))
    done = own("image", "prune")
    assert done.returncode == 125 and "missing" in one_line(done.stderr)
    assert sorted(os.listdir(own.root / "layers")) == before


@pytest.mark.parametrize("name", ["x:1", ""])
def test_an_image_that_cannot_be_read_is_in_nobodys_way(own: Command, name: str) -> None:
    """The others are listed and removed as ever, and it can be given up, also without a name."""
    lost = userland()
    load(own, lost, "x:1")
    if not name:
        load(own, userland(Env=["A=1"]), "x:1")
    load(own, userland({"n": b"1"}), "y:1")
    load(own, userland({"n": b"2"}), "z:1")
    (own.root / "images/blobs/sha256" / lost.id[7:]).unlink()

    done = own("images")
    assert done.returncode == 1 and re.search("^y +1 ", done.stdout, re.M) and " is missing" in one_line(done.stderr)
    called = one_line(done.stderr).split()[-1]
    assert called == name or (not name and re.fullmatch("[0-9a-f]{12}", called))
    assert own("system", "check").stdout.count(f"rmi {called}" if not name else "pull x:1") == 1
    assert said(own("rmi", "y:1")).startswith("Untagged: y:1\nDeleted: ")
    assert "Images" in said(own("system", "df"))
    done = own("image", "prune", "-a")
    assert (done.returncode, f"rmi {called}" in one_line(done.stderr)) == (125, True)
    assert "Deleted: sha256:" in said(own("rmi", called))
    assert ("z", "1") in listed(own) and said(own("system", "check")) == ""
    assert not (own.root / "layers" / digest_of(userland({"n": b"1"}).tars[1])[7:]).exists()  # what was left until now


# No space


def test_no_space_left_while_an_image_is_loaded(tmp_path: Path, host_unchanged: HostUnchanged) -> None:
    """On tmpfs of several sizes in a mount namespace of the test's own: an error, no half image, and with room it goes on."""
    archive = tmp_path / "x.tar"
    archive.write_bytes(userland({"n": os.urandom(400_000)}, Env=["PATH=/bin"]).dockers("x:1"))
    command, state = Command(tmp_path / "state"), tmp_path / "state"
    state.mkdir()
    load_it, look = command.line("load", "-i", archive), command.line("images", "-q")
    script = f"""
    for size in 256k 1500k 3000k 4200k; do
        mount -t tmpfs -o size=$size none {state}
        {words(load_it)} 2>&1; echo "code $?"; {words(look)} | wc -l
        mount -o remount,size=64m {state}
        {words(load_it)}; {words(command.line("run", "--rm", *QUIET, "x:1", "echo", "up"))}
        {words(command.line("system", "check"))}
        umount {state}
    done
    """
    with host_unchanged():
        done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, timeout=120)
    lines = iter(done.stdout.splitlines())
    for _ in range(4):
        error = next(lines)
        assert "No space left" in error, done
        assert (next(lines), next(lines)) == ("code 125", "0"), done
        assert (next(lines), next(lines)) == ("Loaded image: x:1", "up"), done
    assert done.stderr == ""


def words(line: list[Any]) -> str:
    import shlex

    return shlex.join(map(str, line))


def test_save_is_whole_or_not_there(own: Command, tmp_path: Path) -> None:
    load(own, userland(), "x:1")
    said(own("save", "-o", tmp_path / "x.tar", "x:1"))
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert tar.getnames()[:3] == ["oci-layout", "index.json", "manifest.json"]
    piped = subprocess.run(own.line("save", "--format", "oci", "x:1"), capture_output=True, timeout=60)
    with tarfile.open(fileobj=io.BytesIO(piped.stdout)) as tar:
        assert "manifest.json" not in tar.getnames()
    done = own("save", "-o", tmp_path / "nowhere/x.tar", "x:1")
    assert done.returncode == 125 and "cannot write" in one_line(done.stderr)
    next((own.root / "images/blobs/sha256").glob(f"{digest_of(userland().tars[0])[7:]}")).unlink()
    done = own("save", "-o", tmp_path / "y.tar", "x:1")
    assert done.returncode == 125 and "missing" in one_line(done.stderr)
    assert sorted(path.name for path in tmp_path.glob("*.tar*")) == ["x.tar"]


def test_save_replaces_files_only(own: Command, tmp_path: Path) -> None:
    """A pipe, a device stays what it is; so does a symbolic link, and its file gets the archive."""
    load(own, userland(), "x:1")
    device = tmp_path / "null"
    os.mknod(device, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    said(own("save", "-o", device, "x:1"))
    assert device.is_char_device() and device.stat().st_rdev == os.makedev(1, 3)
    (tmp_path / "real.tar").touch()
    (tmp_path / "link.tar").symlink_to("real.tar")
    said(own("save", "-o", tmp_path / "link.tar", "x:1"))
    assert (tmp_path / "link.tar").is_symlink() and tarfile.is_tarfile(tmp_path / "real.tar")
    done = own("save", "-o", tmp_path, "x:1")
    assert done.returncode == 125 and "directory" in one_line(done.stderr)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.tar", "null", "own", "real.tar"]


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed: it reads and writes what we do")
def test_there_and_back_by_skopeo(own: Command, tmp_path: Path) -> None:
    load(own, userland({"n": b"1"}, Env=["PATH=/bin"]), "example.org/x:1")
    said(own("save", "-o", tmp_path / "ours.tar", "example.org/x:1"))
    for kind in ("docker-archive", "oci-archive"):
        copy = [
            "skopeo",
            "copy",
            "-q",
            f"{kind}:{tmp_path}/ours.tar:example.org/x:1",
            f"{kind}:{tmp_path}/{kind}.tar:example.org/{kind}:1",
        ]
        subprocess.run(copy, check=True, timeout=60)
        assert said(own("load", "-i", tmp_path / f"{kind}.tar")) == f"Loaded image: example.org/{kind}:1\n"
        assert said(own("run", "--rm", *QUIET, f"example.org/{kind}:1", "cat", "/n")) == "1"
    identities = {row["Id"] for row in json.loads(said(own("images", "--json")))}
    assert identities == {userland({"n": b"1"}, Env=["PATH=/bin"]).id}
