"""What a notebook loads in its first cell: ``%load_ext labs.notebook``.

build        writes notebooks/ from the sources in labs/course/
book         makes a static site of them, with outputs: ``make book``
magics       ``%%exercise``, ``%check``, ``%hint``, ``%%predict``, ``%%isolated``…
session      the exercises of this session, and engines to start containers with
isolated     runs a cell in a sandbox, and brings back what it shows
cell         the process in the sandbox
views        ``%nsdiff``, ``%pstree``, ``%mounts``, ``%cgroup``, ``%packets``
seen         what /proc says of a process
shown        tables, and how something is shown from either process
predictions  what a student expected
tidying      nothing outlives its cell; ``%reset-lab``
results      what ``%check`` shows
pictures     what the kernel says of a container, drawn
network      a small world to follow packets in
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Called by ``%load_ext labs.notebook``."""
    from labs.notebook.magics import load

    load(shell)
