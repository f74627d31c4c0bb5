# attack: none in the exercise; the file's other cells loop, exit and kill
# fails: only the cells of exercises are run
# points: 10
# status: graded

# %%
import os

while True:
    os.kill(-1, 9)

# %%exercise uts.set_names
from minicontainer.linux import CLONE_NEWUTS, setdomainname, sethostname, unshare  # noqa: E402


def set_names(host, domain=None):
    unshare(CLONE_NEWUTS)
    sethostname(host)
    if domain is not None:
        setdomainname(domain)


# %%
os._exit(1)
