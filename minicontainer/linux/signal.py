"""Signals, as numbers: signal(7), sigprocmask(2), sigwait(3).

What the standard library's `signal` has, before that gives every number a name: it makes three enumerations for it when
it is imported (0.4 ms), and then, whenever it is asked for the signals that are blocked, an object for each of them
(0.06 ms), of which nobody here wants to know the name.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from signal import *  # noqa: F403
else:
    from _signal import *  # noqa: F403
