"""Configurations that nobody would write: they are read, or refused in one line; nothing else, and nothing is touched.

First such as the specification has them, made along its structure; then the same with a wrong thing somewhere.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minicontainer.linux import Namespace
from minicontainer.linux.capabilities import NAMES
from minicontainer.runtime.bundle import check_id, default_config, load, specification
from minicontainer.runtime.config import MEMORY_FLAGS, MEMORY_MODES, POLICIES, PROPAGATIONS, RLIMITS, SCHEDULER_FLAGS
from minicontainer.runtime.errors import BundleError
from minicontainer.runtime.spec import Spec

TIME = settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

WORD = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
PATH = WORD.map(lambda word: f"/{word}")
COUNT = st.integers(0, 1 << 31)
LIMIT = st.integers(-1, (1 << 63) - 1)
UINT32 = st.integers(0, (1 << 32) - 1)
UINT64 = st.integers(0, (1 << 64) - 1)
LIST = st.sampled_from(["0", "0-2,7", "", "3, 4"])


def some(items: st.SearchStrategy[Any], most: int = 3, key: Any = None) -> st.SearchStrategy[list[Any]]:
    return st.lists(items, max_size=most, unique_by=key)


def members(required: dict[str, Any] | None = None, **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    """An object; each of the optional members is there or not, or null."""
    return st.fixed_dictionaries(required or {}, optional={name: st.none() | value for name, value in optional.items()})


NUMBERS = {"major": st.integers(0, 255), "minor": st.integers(0, 255)}
CAPABILITIES = some(st.sampled_from([f"CAP_{name}" for name in NAMES]) | WORD)
ENV = some(st.tuples(WORD.filter(lambda word: word and "=" not in word), WORD).map("=".join))
HOOKS = some(members({"path": PATH}, args=some(WORD), env=ENV, timeout=st.integers(1, 60)))
RLIMIT = st.tuples(st.sampled_from(RLIMITS), UINT64, UINT64).map(
    lambda parts: {"type": f"RLIMIT_{parts[0]}", "soft": min(parts[1:]), "hard": max(parts[1:])}
)
USER = members({"uid": UINT32, "gid": UINT32}, umask=st.integers(0, 0o777), additionalGids=some(UINT32))
SCHEDULER = members(
    {"policy": st.sampled_from([policy for policy in POLICIES if policy != "SCHED_DEADLINE"])},
    nice=st.integers(-20, 19),
    flags=some(st.sampled_from(SCHEDULER_FLAGS)),
)
DEADLINE = st.lists(st.integers(1024, 1 << 40), min_size=3, max_size=3).map(
    lambda times: {
        "policy": "SCHED_DEADLINE",
        **dict(zip(("runtime", "deadline", "period"), sorted(times), strict=True)),
    }
)
"""This one policy has three times, and cannot be without them; sched(7)."""
PROCESS = members(
    {"args": st.lists(WORD, min_size=1, max_size=3), "cwd": PATH, "user": USER},
    env=ENV,
    terminal=st.booleans(),
    consoleSize=st.fixed_dictionaries({"height": st.integers(0, 500), "width": st.integers(0, 500)}),
    capabilities=members(**dict.fromkeys("bounding effective inheritable permitted ambient".split(), CAPABILITIES)),
    rlimits=some(RLIMIT, key=lambda limit: limit["type"]),
    noNewPrivileges=st.booleans(),
    oomScoreAdj=st.integers(-1000, 1000),
    scheduler=SCHEDULER | DEADLINE,
    ioPriority=st.fixed_dictionaries({"class": st.just("IOPRIO_CLASS_BE"), "priority": st.integers(0, 7)}),
    execCPUAffinity=members(initial=LIST, final=LIST),
    apparmorProfile=WORD,
    selinuxLabel=WORD,
)
RESOURCES = members(
    devices=some(members({"allow": st.just(True)}, type=st.sampled_from("abc"), access=st.sampled_from(["rwm", "r"]), **NUMBERS)),
    memory=members(
        limit=LIMIT, reservation=LIMIT, swappiness=st.integers(0, 100), disableOOMKiller=st.booleans(), kernel=LIMIT
    ),
    cpu=members(
        shares=st.integers(0, 262144), quota=LIMIT, period=st.integers(0, 1000000), cpus=LIST, mems=LIST,
        idle=st.integers(0, 1), realtimeRuntime=LIMIT, realtimePeriod=st.integers(0, 1000000),
    ),
    pids=members(limit=LIMIT),
    blockIO=members(
        weight=st.integers(10, 1000),
        weightDevice=some(members({"weight": st.integers(10, 1000), **NUMBERS})),
        throttleReadBpsDevice=some(members({"rate": UINT64, **NUMBERS})),
        throttleWriteIOPSDevice=some(members({"rate": UINT64, **NUMBERS})),
    ),
    hugepageLimits=some(members({"pageSize": st.sampled_from(["2MB", "1GB", "64KB"]), "limit": UINT64})),
    network=members(classID=UINT32, priorities=some(members({"name": WORD, "priority": UINT32}))),
    rdma=st.dictionaries(st.sampled_from(["mlx5_1", "rxe3"]), members({"hcaHandles": UINT32}, hcaObjects=UINT32)),
    unified=st.dictionaries(st.sampled_from(["memory.high", "io.max", "hugetlb.2MB.max"]), WORD),
)  # fmt: skip
SECCOMP = members(
    {"defaultAction": st.just("SCMP_ACT_ERRNO")},
    defaultErrnoRet=UINT32,
    architectures=some(WORD),
    flags=some(WORD),
    syscalls=some(
        members(
            {"names": st.lists(WORD, min_size=1, max_size=3), "action": WORD},
            errnoRet=UINT32,
            args=some(members({"index": st.integers(0, 5), "value": UINT64, "op": WORD}, valueTwo=UINT64)),
        )
    ),
)
OPTIONS = some(
    st.sampled_from(["ro", "rw", "nosuid", "rprivate", "size=1k", "idmap"]) | WORD.filter(lambda word: word != "ridmap")
)
ONE_ID = [{"containerID": 0, "hostID": 1000, "size": 10}]
MOUNT = members({"destination": WORD.filter(bool), "type": st.sampled_from(["tmpfs", "proc", "bind"]), "source": WORD.filter(bool)}, options=OPTIONS)  # fmt: skip
LINUX = st.fixed_dictionaries(
    {
        "namespaces": st.just([{"type": kind.name.lower()} for kind in Namespace]),
        "uidMappings": st.just(ONE_ID),
        "gidMappings": st.just(ONE_ID),
    },
    optional={
        "timeOffsets": members(monotonic=members(secs=st.integers(-99, 99), nanosecs=st.integers(0, 999999999)), boottime=members()),
        "devices": some(members({"type": st.sampled_from("cbup"), "path": PATH}, fileMode=st.integers(0, 511), uid=UINT32, gid=UINT32, **NUMBERS)),
        "netDevices": st.dictionaries(st.sampled_from(["eth0", "eth1"]), members(name=st.sampled_from(["in0", "in%d"]))),
        "cgroupsPath": st.sampled_from(["/a/b", "a", "system.slice:x:y", ""]),
        "resources": RESOURCES,
        "sysctl": st.dictionaries(st.sampled_from(["net.ipv4.ip_forward", "kernel/sem", "user.max_pid_namespaces"]), WORD),
        "seccomp": SECCOMP,
        "rootfsPropagation": st.sampled_from(PROPAGATIONS),
        "maskedPaths": some(PATH),
        "readonlyPaths": some(PATH),
        "mountLabel": WORD,
        "personality": members({"domain": st.sampled_from(["LINUX", "LINUX32"])}, flags=some(WORD)),
        "memoryPolicy": members({"mode": st.just("MPOL_PREFERRED")}, nodes=LIST, flags=some(st.just("MPOL_F_STATIC_NODES"))),
    },
)  # fmt: skip
CONFIG = members(
    {"ociVersion": st.sampled_from(["1.1.0", "1.2.1", "1.3.0-dev+x"]), "root": members({"path": st.just("rootfs")}, readonly=st.booleans()), "linux": LINUX},
    process=PROCESS,
    hostname=WORD,
    domainname=WORD,
    mounts=some(MOUNT),
    hooks=members(**dict.fromkeys("prestart createRuntime createContainer startContainer poststart poststop".split(), HOOKS)),
    annotations=st.dictionaries(WORD, st.text(st.characters(codec="utf-8"), max_size=9), max_size=3),
    unknown=st.just({"anything": [1.5]}),
)  # fmt: skip

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(["\ud800", "/x\0", "..", -1, 1 << 64, 1 << 5000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
"""Any value; among them such as hurt."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bundle; whatever was read from it, it is as it was, all but config.json."""
    top = tmp_path_factory.mktemp("fuzz")
    bundle = top / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    (bundle / "config.json").touch()
    before = tree(top)
    yield bundle
    assert tree(top) == before


def tree(top: Path) -> dict[str, tuple[int, ...]]:
    """Every file, config.json apart, with what would change if somebody touched it."""
    paths = [path for path in (top, *top.rglob("*")) if path.name != "config.json"]
    about = {str(path): path.lstat() for path in paths}
    return {path: (one.st_ino, one.st_mode, one.st_mtime_ns, one.st_nlink) for path, one in about.items()}


def read(bundle: Path, data: bytes) -> Spec | str:
    """The specification, or the line that says why there is none."""
    (bundle / "config.json").write_bytes(data)
    files = len(os.listdir("/proc/self/fd"))
    try:
        spec = specification(load(str(bundle)), str(bundle), "c1")
        pickle.dumps(spec)  # as it goes to the helper that starts containers for a notebook
        result: Spec | str = spec
    except BundleError as error:
        result = str(error)
        assert result.isprintable() and 0 < len(result) < 600, result
    assert len(os.listdir("/proc/self/fd")) == files
    return result


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value in a document."""
    yield way
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*way, key))


@TIME
@given(config=CONFIG)
def test_what_the_specification_has_is_read(bundle: Path, config: dict[str, Any]) -> None:
    result = read(bundle, json.dumps(config).encode())
    assert isinstance(result, Spec), result
    assert len(result.mounts) == len(config.get("mounts") or ())
    assert dict(result.annotations) == (config.get("annotations") or {})


@TIME
@given(config=CONFIG, data=st.data())
def test_with_a_wrong_thing_somewhere(bundle: Path, config: dict[str, Any], data: st.DataObject) -> None:
    document: Any = copy.deepcopy(config)
    for _ in range(data.draw(st.integers(1, 3))):
        way = data.draw(st.sampled_from(sorted(places(document), key=repr)))
        junk = data.draw(JSON)
        if not way:
            document = junk
            continue
        owner: Any = document
        for step in way[:-1]:
            owner = owner[step]
        match data.draw(st.sampled_from(["put", "put", "put", "drop", "twice", "rename"])):
            case "put":
                owner[way[-1]] = junk
            case "drop":
                del owner[way[-1]]
            case "twice" if isinstance(owner, list):
                owner.append(owner[way[-1]])
            case "rename" if isinstance(owner, dict):
                owner[data.draw(st.text(max_size=9))] = owner.pop(way[-1])
            case _:
                owner[way[-1]] = [owner[way[-1]]]
    read(bundle, json.dumps(document).encode())


@TIME
@given(data=st.data())
def test_with_broken_bytes(bundle: Path, data: st.DataObject) -> None:
    text = bytearray(json.dumps(default_config(data.draw(st.booleans()))).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    read(bundle, bytes(text))


@TIME
@given(junk=JSON | st.binary(max_size=40))
def test_anything_at_all(bundle: Path, junk: Any) -> None:
    data = junk if isinstance(junk, bytes) else json.dumps(junk).encode()
    assert isinstance(read(bundle, data), str)


@TIME
@given(name=st.text(max_size=20) | st.text("ab/.-_+ \n", max_size=20))
def test_ids(name: str) -> None:
    """What is let through is the name of one directory, below the one that it is made in."""
    try:
        check_id(name)
    except BundleError as error:
        assert str(error).isprintable()
    else:
        assert os.path.normpath(f"/x/{name}") == f"/x/{name}" and name.isascii() and not name.startswith((".", "-"))


def test_the_names_are_those_of_the_specification() -> None:
    assert (
        len(RLIMITS) == 16
        and len(POLICIES) == len(MEMORY_MODES) == len(SCHEDULER_FLAGS) == 7
        and len(MEMORY_FLAGS) == 3
    )
