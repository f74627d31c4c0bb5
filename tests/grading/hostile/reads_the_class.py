# attack: reads other people's submissions, the checks, the gradebook, host secrets, the caller's environment, and
#   open files
# fails: none of them is mounted in the sandbox, and none was left open
# status: graded
# says: nothing found

# %%exercise uts.set_names
import glob
import os

PLACES = ["@submissions@/alice.ipynb", "@out@/grades.csv", "@marker@/secret", "@checkout@/tests/checks/test_03_uts.py"]
PLACES += [
    "@checkout@/minicontainer/steps/uts.py",
    "@checkout@/labs/course/03_uts/notebook.py",
    "@checkout@/notebooks/03-uts.ipynb",
]
PLACES += [
    "/etc/shadow",
    "/root/.ssh/id_rsa",
    "/proc/1/root@marker@/secret",
    "/proc/1/cwd@marker@/secret",
    "..@marker@/secret",
]
ALLOWED = ("/dev/null", "socket:", "anon_inode:[signalfd]", "pipe:", "/proc/")

found = [path for path in PLACES if os.path.exists(path)]
for link in glob.glob("/proc/[0-9]*/fd/*"):
    try:
        target = os.readlink(link)
    except OSError:
        continue
    if not target.startswith(ALLOWED):
        found.append(f"{link} → {target}")
for environment in glob.glob("/proc/[0-9]*/environ"):
    try:
        with open(environment, "rb") as file:
            text = file.read()
    except OSError:
        continue
    if b"ADVERSARY" in text or b"LABS_DEADLINE" in text:
        found.append(environment)


def set_names(host, domain=None):
    raise RuntimeError(f"found {found}" if found else "nothing found")
