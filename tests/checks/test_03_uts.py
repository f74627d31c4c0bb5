"""Lab 03, the UTS namespace: what the kernel says of containers that were named by `uts.set_names`."""

from __future__ import annotations

from labs.grading.checks import Wrong, check
from labs.grading.subject import Subject
from minicontainer.linux import Namespace

SLEEP = ["sleep", "600"]


@check("The container has a UTS namespace of its own", exercise="uts.set_names", points=3)
def test_own_namespace(subject: Subject) -> None:
    """uts_namespaces(7), unshare(2); compare: readlink /proc/self/ns/uts, outside and inside"""
    container = subject.start(SLEEP, hostname=subject.name("alpha"))
    inside, outside = container.namespace("uts"), subject.sandbox.namespace("uts")
    subject.saw(f"container {inside}, the process that started it {outside}")
    if inside == outside:
        raise Wrong(
            f"the container's UTS namespace is that of the process that started it, {outside}: "
            f"unshare(CLONE_NEWUTS) was not called, so every name that is set is set for both"
        )


@check("It has the host name that it was given", exercise="uts.set_names", points=2)
def test_host_name(subject: Subject) -> None:
    """sethostname(2); uname -n, /proc/sys/kernel/hostname"""
    given = subject.name("alpha")
    seen = subject.start(SLEEP, hostname=given).uname().host
    subject.saw(f'asked for "{given}"; uname(2) in the container\'s UTS namespace says "{seen}"')
    if seen == given:
        return
    if seen == subject.sandbox.uname().host:
        raise Wrong(
            f'the container is called "{seen}", as the process that started it: a new UTS namespace begins as a copy, '
            f"and nothing has changed the name in it; sethostname() was not called, or was called somewhere else"
        )
    raise Wrong(
        f'the container was to be called "{given}" and is called "{seen}": is it the argument `host` that is set?'
    )


@check("The host keeps its own name", exercise="uts.set_names", points=2)
def test_host_keeps_its_name(subject: Subject) -> None:
    """uts_namespaces(7): a change is seen by every process of the same namespace, and by no other"""
    before = subject.sandbox.uname()
    given = subject.name("alpha")
    container = subject.start(SLEEP, hostname=given, domainname=subject.name("domain"))
    after = subject.sandbox.uname()
    subject.saw(f'outside, before: "{before.host}", "{before.domain}"; after: "{after.host}", "{after.domain}"')
    if after.host != before.host:
        raise Wrong(
            f'starting the container renamed the host, from "{before.host}" to "{after.host}": sethostname() was '
            f"called while the process was still in the host's UTS namespace; unshare(CLONE_NEWUTS) must come before it"
        )
    if after.domain != before.domain:
        raise Wrong(
            f'starting the container changed the host\'s domain name to "{after.domain}": setdomainname() was called '
            f"while the process was still in the host's UTS namespace; unshare(CLONE_NEWUTS) must come before it"
        )
    if container.namespace("uts") == subject.sandbox.namespace("uts"):
        raise Wrong("the container has no UTS namespace of its own: that the host keeps its name is no merit then")


@check("It has the domain name that it was given", exercise="uts.set_names", points=1)
def test_domain_name(subject: Subject) -> None:
    """setdomainname(2); /proc/sys/kernel/domainname"""
    host, domain = subject.name("alpha"), subject.name("domain")
    seen = subject.start(SLEEP, hostname=host, domainname=domain).uname().domain
    subject.saw(f'asked for "{domain}"; uname(2) in the container\'s UTS namespace says "{seen}"')
    if seen == host:
        raise Wrong("the domain name is the host name: setdomainname() was given `host`, not `domain`")
    if seen != domain:
        raise Wrong(f'the domain name was to be "{domain}" and is "{seen}": setdomainname() was not called with it')


@check("Without a domain it keeps the one that it inherited", exercise="uts.set_names", points=1)
def test_inherited_domain_name(subject: Subject) -> None:
    """uts_namespaces(7): the names are copied from those of the caller's UTS namespace"""
    inherited, host = subject.name("inherited"), subject.name("beta")
    process = subject.perform(
        [
            ("linux.unshare", [Namespace.UTS.flag]),
            ("linux.setdomainname", [inherited]),
            ("uts.set_names", [host]),
        ]
    )
    seen = process.uname()
    subject.saw(f'before: domain "{inherited}"; after set_names("{host}"): host "{seen.host}", domain "{seen.domain}"')
    if seen.host == subject.sandbox.uname().host:
        raise Wrong(f'set_names("{host}") changed no name at all: that the domain name stayed is no merit then')
    if seen.domain != inherited:
        raise Wrong(
            f'set_names("{host}"), without a domain, changed the domain name from "{inherited}" to "{seen.domain}": '
            f"the copy that the new namespace begins with is already right, so with `domain` None leave it alone"
        )


@check("Nothing else about the process changes", exercise="uts.set_names", points=1)
def test_nothing_else(subject: Subject) -> None:
    """unshare(2): one flag for each kind of namespace; namespaces(7)"""
    process = subject.perform("uts.set_names", subject.name("gamma"))
    others = [kind.proc_name for kind in Namespace if kind is not Namespace.UTS and kind.supported]
    others += [kind for kind in ("pid_for_children", "time_for_children") if kind[:-13] in others]
    changed = [kind for kind in others if process.namespace(kind) != subject.sandbox.namespace(kind)]
    subject.saw(f"other namespaces that are new: {', '.join(changed) or 'none'}")
    if process.namespace("uts") == subject.sandbox.namespace("uts"):
        raise Wrong("not even the UTS namespace has changed: that no other has is no merit then")
    if changed:
        raise Wrong(
            f"besides its UTS namespace, the process has left its namespaces of the kind {', '.join(changed)}: "
            f"unshare() was given more flags than CLONE_NEWUTS; each step of a container makes its own namespace"
        )
