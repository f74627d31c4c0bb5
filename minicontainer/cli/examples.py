"""An example or two of each command, for its help: ``minicontainer ps --help``. Imported when help is printed."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "run": (
        "run --rm -it busybox sh",
        "run -d --name web -p 8080:80 --memory 128m busybox httpd -f",
        "run -d --restart on-failure:5 --health-cmd 'nc -z localhost 80' --health-on-failure restart busybox httpd -f",
        "run --rm --env-file app.env -v /srv:/mnt:ro busybox env",
    ),
    "create": ("create --name c1 -l tier=web busybox sleep 600",),
    "start": ("start c1", "start -a c1"),
    "exec": (
        "exec -it c1 sh",
        "exec -d -e DEBUG=1 -u 1000 -w /tmp c1 sleep 60",
        "exec --namespaces net,uts c1 ip address",
    ),
    "debug": ("debug c1 ps", "debug -it --image debian:12 c1 bash"),
    "attach": ("attach c1",),
    "console": ("console c1",),
    "logs": ("logs -f --tail 10 c1",),
    "stop": ("stop --time 3 c1 c2",),
    "restart": ("restart c1", "restart --time 3 c1 c2"),
    "kill": ("kill -s HUP c1",),
    "wait": ("wait c1",),
    "ps": (
        "ps -a --filter status=exited --filter label=tier=web",
        "ps -a --format 'table {{.Names}}\\t{{.Status}}\\t{{.Networks}}'",
        "ps --json",
    ),
    "inspect": ("inspect c1", "inspect --type image --format '{{.Config.Cmd}}' busybox"),
    "info": ("info", "info c1", "info --format '{{.State}}' c1"),
    "top": ("top c1", "top --sort cpu --delay 1", "top --batch --count 3"),
    "healthcheck": ("healthcheck run c1",),
    "rename": ("rename c1 web",),
    "container": ("container prune -f --filter label=tier=test",),
    "rm": ("rm c1", "rm -f --snapshots c1 c2"),
    "destroy": ("destroy c1",),
    "snapshot": ("snapshot -c 'before the upgrade' c1", "snapshot list c1", "snapshot restore c1 snap0"),
    "clone": ("clone c1 c2", "clone --ephemeral --snapshot snap0 c1"),
    "update": ("update --memory 256m --cpus 0.5 c1", "update --publish 9090:80 c1", "update --restart always c1"),
    "stats": ("stats --no-stream", "stats --no-stream --format '{{.Name}} {{.MemUsage}}'"),
    "pause": ("pause c1",),
    "unpause": ("unpause c1",),
    "freeze": ("freeze c1",),
    "unfreeze": ("unfreeze c1",),
    "cgroup": ("cgroup tree", "cgroup count c1 --event page-faults --seconds 2"),
    "network": ("network create --subnet 172.20.0.0/16 web", "network ls", "network connect web c1"),
    "port": ("port c1",),
    "pull": ("pull localhost:5000/debian:12",),
    "push": ("push localhost:5000/mine:1",),
    "login": ("login localhost:5000",),
    "logout": ("logout localhost:5000",),
    "search": ("search localhost:5000/deb",),
    "check": ("check", "check --json"),
    "images": ("images", "images --format '{{.Repository}}:{{.Tag}} {{.Size}}'"),
    "history": ("history busybox", "history --tree"),
    "tag": ("tag busybox mine:1",),
    "rmi": ("rmi mine:1",),
    "save": ("save -o mine.tar mine:1",),
    "load": ("load -i mine.tar",),
    "commit": ("commit -m 'with my tools' c1 mine:1",),
    "diff": ("diff c1",),
    "cp": ("cp c1:/etc/passwd .", "cp site c1:/www"),
    "export": ("export -o c1.tar c1",),
    "import": ("import c1.tar mine:1",),
    "image": ("image make debian deb12", "image prune"),
    "system": ("system df", "system repair"),
    "volume": ("volume create data", "volume ls", "volume prune"),
    "completion": ("completion bash > ~/.local/share/bash-completion/completions/minicontainer",),
    "man": ("man ps | man -l -", "man --directory /usr/local/share/man/man1"),
}


def examples_of(prog: str) -> str:
    """As the end of the help of ``minicontainer COMMAND``."""
    lines = EXAMPLES.get(prog.removeprefix("minicontainer "), ())
    return "examples:\n" + "\n".join(f"  minicontainer {line}" for line in lines) if lines else ""
