"""The book: real outputs, no answers, nothing that is fetched from elsewhere; and the course's README beside the labs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from labs.catalogue import every, find
from labs.notebook import build
from minicontainer.linux import Namespace
from minicontainer.steps.loading import read_exercises

README = (Path(__file__).parents[2] / "labs" / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pages of the book of one lab, by name; made in a process of its own, because of what matplotlib opens."""
    out = tmp_path_factory.mktemp("book")
    subprocess.run(
        [sys.executable, "-m", "labs", "book", "03", "--out", str(out)],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "CHROMIUM": ""},
    )
    assert (out / "03-1.png").read_bytes().startswith(b"\x89PNG")
    return {page.name: page.read_text(encoding="utf-8") for page in out.iterdir() if page.suffix in (".html", ".css")}


def test_a_page_has_what_the_cells_put_out_and_no_answer(pages: dict[str, str]) -> None:
    page = pages["03-uts.html"]
    assert "10 of 10 points" in page
    assert "(c) the parent&#x27;s name is child" in page
    assert "not written yet" not in page
    (answer,) = read_exercises([find("03").directory / "notebook.py"]).values()
    between = answer.source.partition(build.BEGIN)[2].partition(build.END)[0]
    text = re.sub(r"<[^>]+>", "", page)
    assert 'raise NotImplementedError("write this function")' in text.replace("&quot;", '"')
    assert "    setdomainname(domain)" in between
    assert "setdomainname(domain)" not in text


def test_pictures_can_be_read_aloud(pages: dict[str, str]) -> None:
    alts = re.findall(r'<img src="03-\d+\.png" alt="([^"]*)">', pages["03-uts.html"])
    assert alts
    assert all(re.search(r"uts:\[\d+\]", alt) for alt in alts)


def test_nothing_is_fetched_and_every_page_is_dark_where_that_is_wanted(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        assert not re.findall(r'(?:src|@import|url\()[="\s]*https?:', page), name
        assert "<script" not in page
    assert "prefers-color-scheme: dark" in pages["style.css"]


def test_the_index_leads_to_the_pages(pages: dict[str, str]) -> None:
    index = pages["index.html"]
    ends = re.findall(r'href="([^"]*)"', index)
    assert "03-uts.html" in ends
    for end in ends:
        assert end in pages or f'id="{end[1:]}"' in index, end
    assert "<h2" in pages["index.html"]
    assert "CLONE_NEWTIME" in pages["index.html"]


def test_the_map_has_every_lab_with_its_exercises() -> None:
    rows = {row[:4]: row for row in re.findall(r"^\| \[(.*)$", README, re.MULTILINE)}
    for lab in every():
        row = rows[f"{lab.number}]("]
        assert f"(../notebooks/{lab.number}-{lab.name}.ipynb)" in row
        for exercise in lab.exercises:
            assert f"`{exercise.partition('.')[2]}`" in row


def test_the_table_of_namespaces_is_the_engines() -> None:
    for kind in Namespace:
        (row,) = [row for row in README.splitlines() if f"| `{kind.proc_name}`" in row]
        assert kind.since in row
        short = {"MOUNT": "NS", "NETWORK": "NET"}.get(kind.name, kind.name)
        assert f"`CLONE_NEW{short}`" in row
