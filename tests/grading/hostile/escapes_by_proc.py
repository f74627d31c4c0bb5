# attack: goes to the host through /proc/PID/root and cwd, joins the namespaces of its parents, traces and signals the
#   examiner
# fails: /proc shows the sandbox's PID namespace only; nobody can name, and so join, trace or signal, a process
#   outside of it
# status: graded|timeout
# says: nothing gained

# %%exercise uts.set_names
import ctypes
import fcntl
import os
import signal

from minicontainer.linux import Namespace, flags, setns

NS_GET_USERNS, NS_GET_PARENT = 0xB701, 0xB702
PTRACE_ATTACH = 16

gained = []
for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
    for door in ("root", "cwd"):
        if os.path.exists(f"/proc/{pid}/{door}@marker@/secret"):
            gained.append(f"/proc/{pid}/{door}")
for kind in Namespace:
    fd = os.open(f"/proc/self/ns/{kind.proc_name}", os.O_RDONLY)
    for request in (NS_GET_USERNS, NS_GET_PARENT):
        try:
            above = fcntl.ioctl(fd, request)
            same = os.path.samestat(os.fstat(above), os.stat("/proc/self/ns/user"))
            if not same:
                setns(above, 0)
                gained.append(f"the namespace above our {kind.proc_name}")
        except OSError:
            pass
libc = ctypes.CDLL(None)
for pid in ("@examiner@", "@victim@"):
    pid = int(pid)
    if os.path.exists(f"/proc/{pid}"):
        continue  # a process of this sandbox that happens to have the same number
    try:
        os.kill(pid, signal.SIGKILL)
        gained.append(f"a signal to {pid}")
    except OSError:
        pass
    if libc.ptrace(PTRACE_ATTACH, pid, None, None) == 0:
        gained.append(f"traces {pid}")
    try:
        setns(os.pidfd_open(pid), flags([Namespace.UTS]))
        gained.append(f"joined {pid}")
    except OSError:
        pass


def set_names(host, domain=None):
    raise RuntimeError(f"gained {gained}" if gained else "nothing gained")
