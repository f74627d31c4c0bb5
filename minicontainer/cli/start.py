"""The first and the last line of the command that `make setup` installs.

A short life: no garbage collector, which would look through ten thousand new objects a dozen times while modules are
imported; no search for translations of argparse's messages, since ours have none; and at the end no tidying up of what
the kernel takes back anyway.
"""

import gc
import os
import sys


def start() -> None:
    """Run the command, and end with its exit code. Does not return."""
    gc.disable()
    import argparse

    argparse._ = str  # type: ignore[attr-defined]
    from minicontainer.cli import main

    code = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:  # None: it was closed when we began
                stream.flush()
        except BrokenPipeError:  # `minicontainer ps | head -1`
            code = 141
    os._exit(code)
