"""The first and the last line of the commands that `make setup` installs.

A short life: no garbage collector, which would look through ten thousand new objects a dozen times while modules are
imported; no search for translations of argparse's messages, since ours have none; and at the end no tidying up of what
the kernel takes back anyway.
"""

import gc
import os
import sys


def start() -> None:
    """Run `minicontainer`, and end with its exit code. Does not return."""
    gc.disable()
    import argparse

    argparse._ = str  # type: ignore[attr-defined]
    from minicontainer.cli import main

    _end(main())


def start_runtime() -> None:
    """Likewise `minicontainer-runtime`."""
    gc.disable()
    from minicontainer.cli.runtime import main

    _end(main())


def _end(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:  # None: it was closed when we began
                stream.flush()
        except BrokenPipeError:  # `minicontainer ps | head -1`
            code = 141
    os._exit(code)
