# attack: an object that is equal to everything, in place of every result and every name
# fails: no object of the submission comes out of the sandbox: what is compared are strings that the kernel gave
# status: graded

# %%exercise uts.set_names
import os


class Everything(str):
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __hash__(self):
        return 0

    def __bool__(self):
        return True

    def __contains__(self, other):
        return True


os.readlink = os.uname = os.getpid = lambda *_, **__: Everything()


def set_names(host, domain=None):
    return Everything(host)
