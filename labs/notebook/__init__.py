"""What a notebook loads in its first cell: ``%load_ext labs.notebook``.

build     writes notebooks/ from the sources in labs/course/
magics    ``%%exercise``, ``%%apart`` and ``%check``
session   the exercises of this session, and engines to start containers with
results   what ``%check`` shows
pictures  what the kernel says of a container, drawn
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Called by ``%load_ext labs.notebook``."""
    from labs.notebook.magics import load

    load(shell)
