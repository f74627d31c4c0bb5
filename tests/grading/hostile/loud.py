# attack: 100 MB on the standard output and the standard error, and on everything else that is open
# fails: both are the sandbox's own /dev/null, so it costs a memcpy that is not even made
# status: graded

# %%exercise uts.set_names
import os

NOISE = b"<script>alert(1)</script>\n" * 40_000


def set_names(host, domain=None):
    for _ in range(100):
        os.write(1, NOISE)
        os.write(2, NOISE)
    print(NOISE.decode())
    return host
