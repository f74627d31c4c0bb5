# attack: says that it is called what it was to be called, wherever a program might ask: os.uname, the prompt, /etc, a
#   mount over /proc
# fails: the name is read by a process of ours in the container's UTS namespace, and in our own mount namespace
# status: graded

# %%exercise uts.set_names
import os
import socket

from minicontainer.linux import MS_BIND, mount


def set_names(host, domain=None):
    socket.gethostname = lambda: host
    os.uname = lambda: os.uname_result(("Linux", host, "", "", ""))
    os.environ["HOSTNAME"] = host
    os.makedirs("/etc", exist_ok=True)
    for name, value in (("hostname", host), ("domainname", domain or "")):
        with open(f"/etc/{name}", "w") as file:
            file.write(value + "\n")
        mount(f"/etc/{name}", f"/proc/sys/kernel/{name}", None, MS_BIND)
