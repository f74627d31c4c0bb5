"""The first and the last line of the commands that `make setup` installs.

A short life: no garbage collector, which would look through ten thousand new objects a dozen times while modules are
imported; modules found where they must be (`minicontainer.importing`); no search for translations of argparse's
and getopt's messages, since ours have none; and at the end no tidying up of what the kernel takes back anyway.
"""

import gc
import os
import sys

from minicontainer import importing


def start() -> None:
    """Run `minicontainer`, and end with its exit code. Does not return."""
    gc.disable()
    importing.shorten()
    _leave_untranslated("argparse")
    from minicontainer.cli import main

    _end(main())


def start_runtime() -> None:
    """Likewise `minicontainer-runtime`."""
    gc.disable()
    importing.shorten()
    _leave_untranslated("getopt")
    from minicontainer.cli.runtime import main

    _end(main())


def _leave_untranslated(module: str) -> None:
    """Import argparse or getopt with two functions in gettext's place that answer what it is asked: 0.7 ms less."""
    untranslated = type(sys)("gettext")
    untranslated.__dict__.update(gettext=str, ngettext=lambda one, many, number: one if number == 1 else many)
    sys.modules["gettext"] = untranslated
    __import__(module)
    del sys.modules["gettext"]


def _end(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:  # None: it was closed when we began
                stream.flush()
        except BrokenPipeError:  # `minicontainer ps | head -1`
            code = 141
        except OSError as error:  # `minicontainer ps >/dev/full`
            code = 125
            if stream is sys.stdout:
                os.write(2, f"minicontainer: standard output: {error.strerror}\n".encode())
    os._exit(code)
