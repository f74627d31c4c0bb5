# attack: renames the sandbox instead of making a namespace, while a helper renames it back, and again, for whichever
#   is asked for
# fails: who has no UTS namespace of its own is told so by the number of the namespace, whatever its names are at the
#   moment
# status: graded|timeout

# %%exercise uts.set_names
import os

from minicontainer.linux import sethostname


def set_names(host, domain=None):
    sethostname(host)
    if os.fork() == 0:
        os.setsid()
        while True:
            sethostname("sandbox")
            sethostname(host)
