"""The ``minicontainer`` command. It parses, calls the engine, and prints; it decides nothing."""

from __future__ import annotations

import os
import sys

from minicontainer.linux import signal

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGWINCH)
"""Signals that arrive while a container runs: held back from now on, and read where they can be acted on."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code. What a user can do wrong is one line on standard error."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as some daemons leave it, nobody's end could be waited for
    _open_standard_files()
    from minicontainer.cli.arguments import parse
    from minicontainer.engine.errors import EngineError
    from minicontainer.runtime.errors import Interrupted, StartError
    from minicontainer.steps.loading import BadExercise, BadSubmission

    try:
        arguments = parse(argv)
        if arguments.explain:
            from minicontainer.cli.explain import explained

            return explained(arguments)
        return int(arguments.act(arguments))
    except (EngineError, StartError) as error:
        return _say(error, error.exit_code)
    except (BadSubmission, BadExercise) as error:
        return _say(error, 125)
    except Interrupted as error:
        return _say(error, 128 + error.number)
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except BrokenPipeError:  # `minicontainer ps | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except OSError as error:  # a full disk, a state directory that somebody else writes to
        return _say(error, 125)


def _open_standard_files() -> None:
    """Put /dev/null where 0, 1 or 2 was closed: else what we open next has that number, and is the program's output."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _say(what: object, exit_code: int) -> int:
    text = " ".join(str(what).split("\n"))
    print(f"minicontainer: {text}", file=sys.stderr)
    return exit_code
