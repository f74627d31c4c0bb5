"""User namespaces of the sandbox, furnished from outside: maps that are the examiner's, for a process to be root by."""

from __future__ import annotations

import os
from collections.abc import Sequence

from labs.grading.checks import Wrong
from labs.grading.observed import Observed
from labs.grading.observed_network import visiting
from minicontainer.linux import CLONE_NEWUSER, setns
from minicontainer.steps.user import IdMap


def give_maps(sandbox: Observed, process: Observed, uids: Sequence[IdMap], gids: Sequence[IdMap], groups: bool) -> None:
    """Write the maps of a process that is in a user namespace which has none yet, as the sandbox's root.

    Without `groups`, setgroups(2) is denied to it before. Only one from the namespace above may do that, so a child of
    ours becomes the sandbox's root for it. Raises Wrong: it has maps already; somebody in the sandbox was faster.
    """

    def write(_: object) -> str:
        setns(sandbox.pidfd, CLONE_NEWUSER)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        try:
            if not groups:
                _write(f"/proc/{process.pid}/setgroups", "deny")
            for kind, lines in (("uid", uids), ("gid", gids)):
                _write(f"/proc/{process.pid}/{kind}_map", "\n".join(" ".join(map(str, line)) for line in lines))
        except PermissionError as error:
            return str(error)
        return ""

    if refused := visiting(write):
        raise Wrong(f"the maps of the process were written before anybody was asked to: {refused}")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
