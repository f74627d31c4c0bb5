"""What this machine can do for containers:

every feature yes or no, why, and how to mend it. LXC's word: lxc-checkconfig.

    finding     what is said of one feature
    probing     how a thing is tried without harm: in a child, with a time limit
    kernel      its configuration and its modules: what is there without being tried
    calls, namespaces, users, groups, files, network (netlink), trial:   a heading each
    hardening, security_modules, sysctls:   one heading, in three parts
"""

from __future__ import annotations

import json
import os

from minicontainer.engine.host.calls import of_calls
from minicontainer.engine.host.files import of_files
from minicontainer.engine.host.finding import Finding
from minicontainer.engine.host.groups import of_groups
from minicontainer.engine.host.hardening import of_hardening
from minicontainer.engine.host.kernel import of_checkpoints, of_kernel, read_kernel
from minicontainer.engine.host.namespaces import of_namespaces
from minicontainer.engine.host.network import of_network
from minicontainer.engine.host.security_modules import of_security_modules
from minicontainer.engine.host.sysctls import of_sysctls
from minicontainer.engine.host.trial import of_containers
from minicontainer.engine.host.users import of_users

__all__ = ["Finding", "examine", "passes", "report"]


def examine(root: str | None = None) -> list[Finding]:
    """Every finding about this machine, for this user. The last one is the proof: a container is started.

    `root` is where the engine's state is, as for `Engine`. Nothing is changed, and no module of the kernel loaded.
    """
    from minicontainer.engine.engine import default_root

    kernel = read_kernel()
    headings = {
        "Kernel": of_kernel(kernel),
        "System calls": of_calls(),
        "Namespaces": of_namespaces(),
        "Users": of_users(),
        "Control groups": of_groups(kernel),
        "File systems": of_files(kernel, os.fspath(root or default_root())),
        "Network": of_network(kernel),
        "Hardening": [*of_hardening(), *of_security_modules(kernel), *of_sysctls(kernel)],
        "Checkpoint and restore": of_checkpoints(kernel),
        "Containers": of_containers(root),
    }
    return [finding.replace(heading=heading) for heading, findings in headings.items() for finding in findings]


def passes(findings: list[Finding]) -> bool:
    """Whether everything is there that a container needs."""
    return all(finding.works for finding in findings if finding.required)


def report(findings: list[Finding], *, as_json: bool = False) -> str:
    """The findings as a table for people, under their headings, or as JSON: a list of objects, `Finding`'s fields."""
    if as_json:
        return json.dumps([finding.asdict() for finding in findings], indent=2)
    width, lines, heading = max(len(finding.feature) for finding in findings), list[str](), ""
    for finding in findings:
        if finding.heading != heading:
            heading = finding.heading
            lines += [""] * bool(lines) + [heading]
        mark = "yes" if finding.works else "?  " if finding.works is None else "NO " if finding.required else "no "
        lines.append(f"  {finding.feature.ljust(width)}  {mark}  {finding.shows}")
        if not finding.works and finding.mend:
            lines.append(f"  {''.ljust(width)}       → {finding.mend}")
    return "\n".join([*lines, "", _sum(findings)])


def _sum(findings: list[Finding]) -> str:
    lacking = [finding.feature for finding in findings if finding.required and not finding.works]
    spare = sum(not finding.works for finding in findings if not finding.required)
    if lacking:
        return f"Containers need what is missing here: {', '.join(lacking)}."
    return (
        f"Everything that containers need is here; {spare} of {len(findings)} things are not, and can be done without."
    )
