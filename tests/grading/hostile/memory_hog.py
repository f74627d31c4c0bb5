# attack: takes all memory there is
# fails: beyond the control group's 256 MiB (or RLIMIT_AS) the kernel kills, or refuses, in this sandbox and nowhere
#   else
# status: graded|timeout
# says: memory|MemoryError

# %%exercise uts.set_names
def set_names(host, domain=None):
    hoard = []
    while True:
        hoard.append(b"x" * (16 << 20))
