"""nftables by its library and by its program: the same answers, the same errors, and nothing half-done."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from minicontainer.linux import nftables
from minicontainer.linux.nftables import NoNftables, listing
from tests.command import needs_root
from tests.netns import World, run

pytestmark = needs_root

SET = "add table inet t\nadd set inet t s { type ipv4_addr; }\n"


@pytest.fixture(params=["library", "program"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to nftables."""
    if request.param == "program":
        monkeypatch.setattr(nftables, "_library", lambda: None)
    return str(request.param)


def test_commands_and_listing(world: World, way: str) -> None:
    nftables.run(SET + "add element inet t s { 10.0.0.1 }\n")
    assert "10.0.0.1" in run("nft", "list", "ruleset")
    theirs = json.loads(run("nft", "-j", "list", "table", "inet", "t"))["nftables"]
    assert listing("list table inet t") == [entry for entry in theirs if "metainfo" not in entry]
    assert listing("list table inet other") == []


def test_all_or_nothing(world: World, way: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"^\[Errno 2\] nft .*: No such file"):
        nftables.run(SET + "add element inet t other { 1 }\n")
    assert run("nft", "list", "ruleset") == ""
    nftables.run(SET)
    before = run("nft", "list", "ruleset")
    with pytest.raises(FileNotFoundError):
        nftables.run("add element inet t s { 10.0.0.2 }\ndelete element inet t s { 10.0.0.3 }\n")
    assert run("nft", "list", "ruleset") == before


def test_errors_have_their_numbers(world: World, way: str) -> None:
    nftables.run("create table inet t")
    with pytest.raises(FileExistsError, match="nft create table inet t: File exists"):
        nftables.run("create table inet t")
    with pytest.raises(OSError, match="syntax error"):
        nftables.run("make it so")
    if way == "program":
        return  # it refuses to run at all for somebody who only acts as somebody else
    os.seteuid(65534)
    try:
        with pytest.raises(PermissionError, match="CAP_NET_ADMIN"):
            nftables.run("add table inet u")
    finally:
        os.seteuid(0)


def test_neither_library_nor_program(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nftables, "_loaded", [])
    monkeypatch.setattr(nftables, "LIBRARY", "libnftables.so.none")
    monkeypatch.setattr(nftables, "PLACES", (str(tmp_path),))
    with pytest.raises(NoNftables, match="install nftables"):
        nftables.run("add table inet t")
