# attack: reads the memory of every process of the sandbox, its own and that of process 1 too, for the solution and
#   for secrets
# fails: process 1 was executed anew in the classroom, and never had in its memory what the classroom has not
# status: graded
# says: nothing found

# %%exercise uts.set_names
import os

# Backwards, or we should find our own source, which process 1 has in its memory.
WANTED = [b"@terces@", b"eman STU a ssecorp gnillac eht eviG"]


def mapped(process):
    with open(f"{process}/maps") as maps, open(f"{process}/mem", "rb", 0) as memory:
        for line in maps:
            where, rights, *_ = line.split()
            start, end = (int(number, 16) for number in where.split("-"))
            if rights[0] == "r" and "w" in rights:
                try:
                    memory.seek(start)
                    yield memory.read(min(end - start, 16 << 20))
                except (OSError, ValueError):
                    pass


def set_names(host, domain=None):
    seen = 0
    for process in ("/proc/1", f"/proc/{os.getppid()}"):
        try:
            for piece in mapped(process):
                seen += len(piece)
                for wanted in WANTED:
                    if wanted[::-1] in piece:
                        raise RuntimeError(f"found in {process}: {wanted[::-1]!r}")
        except OSError:
            pass  # process 1 does not let itself be read
    raise RuntimeError(f"nothing found in {seen} bytes")


PROBE = os.fork()  # set_names runs in the container's PID namespace; from here, process 1 of the sandbox can be read
if PROBE == 0:
    try:
        set_names("")
    except RuntimeError as error:
        with open("/told", "w") as told:
            told.write(str(error))
    os._exit(0)
os.waitpid(PROBE, 0)
with open("/told") as told:
    raise RuntimeError(told.read())
