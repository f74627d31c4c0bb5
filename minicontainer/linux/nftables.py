"""The kernel's packet filter and address translation, in nft(8)'s own language, without starting nft.

libnftables(3) is the library that nft is a shell around. What is given to it in one call is one transaction: the kernel
takes all of it or nothing, and no packet meets half of it. Where the library is missing, the program does the same.

nft(8), libnftables(3), libnftables-json(5).
"""

from __future__ import annotations

import ctypes
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NFT_CTX_OUTPUT_JSON = 1 << 4

LIBRARY = "libnftables.so.1"
PLACES = ("/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin")


class NoNftables(OSError):
    """There is neither libnftables nor nft here, or the kernel has no nf_tables."""


def run(commands: str) -> None:
    """Have the kernel take commands, a line each, all or none: ``add table inet filter``.

    In the caller's network namespace. Raises OSError with what nft says, and the errno if one can be told from that:
    EPERM (needs CAP_NET_ADMIN), ENOENT (no such table, set or element), EEXIST; NoNftables.
    """
    _run(commands, json=False)


def listing(command: str) -> list[dict[str, Any]]:
    """What ``nft -j list …`` says, its wrapping taken off: ``[{"table": {"family": "inet", …}}, …]``.

    Nothing, if there is no such table. Raises OSError as `run` does.
    """
    import json

    try:
        text = _run(command, json=True)
    except FileNotFoundError:
        return []
    entries = json.loads(text)["nftables"] if text.strip() else []
    return [entry for entry in entries if "metainfo" not in entry]


def _run(commands: str, json: bool) -> str:
    library = _library()
    if library is None:
        return _run_program(commands, json)
    context = library.nft_ctx_new(0)
    if not context:
        raise OSError(errno.ENOMEM, "nft_ctx_new: no memory, or no netlink socket")
    try:
        if json:
            library.nft_ctx_output_set_flags(context, NFT_CTX_OUTPUT_JSON)
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        failed = library.nft_run_cmd_from_buffer(context, commands.encode())
        output: str = library.nft_ctx_get_output_buffer(context).decode()
        said: str = library.nft_ctx_get_error_buffer(context).decode()
    finally:
        library.nft_ctx_free(context)
    if failed:
        raise _failure(commands, said)
    return output


_loaded: list[ctypes.PyDLL | None] = []


def _library() -> ctypes.PyDLL | None:
    """The library, loaded when it is first asked for."""
    if not _loaded:
        try:
            library = ctypes.PyDLL(LIBRARY)
        except OSError:
            _loaded.append(None)
        else:
            for name, result, arguments in (
                ("nft_ctx_new", ctypes.c_void_p, [ctypes.c_uint32]),
                ("nft_ctx_free", None, [ctypes.c_void_p]),
                ("nft_ctx_output_set_flags", None, [ctypes.c_void_p, ctypes.c_uint]),
                ("nft_ctx_buffer_output", ctypes.c_int, [ctypes.c_void_p]),
                ("nft_ctx_buffer_error", ctypes.c_int, [ctypes.c_void_p]),
                ("nft_ctx_get_output_buffer", ctypes.c_char_p, [ctypes.c_void_p]),
                ("nft_ctx_get_error_buffer", ctypes.c_char_p, [ctypes.c_void_p]),
                ("nft_run_cmd_from_buffer", ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p]),
            ):
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
            _loaded.append(library)
    return _loaded[0]


def _run_program(commands: str, json: bool) -> str:
    import subprocess

    program = next((path for place in PLACES if os.access(path := f"{place}/nft", os.X_OK)), None)
    if program is None:
        raise NoNftables(errno.ENOSYS, f"neither {LIBRARY} nor nft is here: install nftables")
    words = ["-j", commands] if json else ["-f", "-"]
    done = subprocess.run([program, *words], input=commands, capture_output=True, text=True)
    if done.returncode:
        raise _failure(commands, done.stderr)
    return done.stdout


def _failure(commands: str, said: str) -> OSError:
    """The OSError for what nft said: where, "Error:", the reason, and the line with a mark below the place in it.

    The library always shows the first line of the transaction, so with several nothing is said about which it was.
    """
    told, _, reason = said.partition("Error:")
    reason, _, shown = reason.strip().partition("\n")
    reason = reason or said.strip() or "it gives no reason"
    for opening in ("Could not process rule: ", "cache initialization failed: "):
        reason = reason.removeprefix(opening)
    lines = [line for line in commands.splitlines() if line and not line.startswith("#")]
    if shown and (len(lines) == 1 or told.strip()):
        place = shown.partition("\n")[0].strip()
    elif len(lines) == 1:
        place = lines[0].strip()
    else:
        place = f"({len(lines)} commands, {lines[0]} and so on)"
    number = next((number for words, number in _NUMBERS.items() if reason.startswith(words)), errno.EINVAL)
    if number == errno.EPERM:
        reason += ": needs CAP_NET_ADMIN in the user namespace that owns this network namespace"
    kind = NoNftables if number in (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT) else OSError
    return kind(number, f"nft {place}: {reason}")


_NUMBERS = {
    os.strerror(number): number
    for number in (
        errno.EPERM,
        errno.ENOENT,
        errno.EEXIST,
        errno.EBUSY,
        errno.EINVAL,
        errno.ENOMEM,
        errno.EOPNOTSUPP,
        errno.EPROTONOSUPPORT,
        errno.EMFILE,
    )
}
