"""Makes a book of the course: ``labs book [NN…] [--out DIR]``, a static site with what every cell has put out.

Each lab is executed with its solutions, on this machine and just now; the pages show the cells as students get them. So
all figures are real, and no answer is told. Nothing in a page is fetched from anywhere: it can be read from a disk.
Where there is a chromium (CHROMIUM names another, or none), each page is also photographed, light and dark, for whoever
wants to look at all of them.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labs.catalogue import Lab, NoSuchLab, every, find
from labs.notebook import build

OUT = Path(__file__).parents[2] / "build" / "book"
PATIENCE = 300
"""Seconds that a cell may take."""

_HEAD = (
    "What the cells have put out is from one run on one machine, with every exercise solved; the cells are shown as "
    "students get them. The notebook itself is the one to work with: there you predict, write, and ask the kernel."
)

_STYLE = """\
:root { color-scheme: light dark;
  --ink: #222; --page: #fff; --quiet: #666; --line: #8885; --code: #f5f5f5; --link: #0060a0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ddd; --page: #181a1b; --quiet: #999; --code: #242729; --link: #6cb6ff; }
}
body { margin: 0 auto; padding: 1em; max-width: 62em; color: var(--ink); background: var(--page); line-height: 1.5;
  font-family: system-ui, "DejaVu Sans", sans-serif; }
a { color: var(--link); }
nav { font-size: 90%; border-bottom: 1px solid var(--line); padding-bottom: .5em; }
nav a { margin-right: 1em; white-space: nowrap; }
nav a[aria-current] { font-weight: bold; color: var(--ink); }
pre, code { font-family: "DejaVu Sans Mono", monospace; font-size: 88%; }
pre { overflow-x: auto; padding: .6em .8em; margin: .4em 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.input pre { background: var(--code); border-radius: .4em; }
.output { border-left: 3px solid var(--line); padding-left: .6em; }
.stderr { border-left: 3px solid #d55e00; padding-left: .6em; }
.none { color: var(--quiet); font-size: 85%; }
img { max-width: 100%; background: #fff; border-radius: .4em; }
table { border-collapse: collapse; font-size: 92%; }
th, td { text-align: left; vertical-align: top; padding: .25em .6em; border-top: 1px solid var(--line); }
.output table { display: block; overflow-x: auto; }
@media print { nav { display: none; } }
"""


def book(labs: Sequence[Lab], out: Path = OUT) -> list[Path]:
    """Write the pages of these labs, and an index; returns their paths. Raises BadSource."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "style.css").write_text(_STYLE + _colours(), encoding="utf-8")
    pages = []
    for lab in labs:
        notebook = executed(lab)
        pages.append(_page(out, f"{lab.number}-{lab.name}.html", lab.title, _cells(notebook, lab, out), labs))
        print(pages[-1].name, flush=True)
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    index = _page(out, "index.html", "The course", _markdown(_linked(readme, {page.stem for page in pages})), labs)
    return [index, *pages]


def _linked(readme: str, pages: set[str]) -> str:
    """The README with its links to notebooks leading to the pages that there are; others lead nowhere from here."""

    def to_page(found: re.Match[str]) -> str:
        return f"[{found[1]}]({found[2]}.html)" if found[2] in pages else found[1]

    readme = re.sub(r"\[([^]]*)\]\(\.\./notebooks/([\w-]+)\.ipynb\)", to_page, readme)
    return re.sub(r"\[([^]]*)\]\(\.\./[^)]*\)", r"\1", readme)


def executed(lab: Lab) -> Any:
    """The notebook of a lab with the outputs that it has with its solutions, and without these.

    Raises BadSource; CellExecutionError of nbclient: a cell failed.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook: Any = nbformat.reads(build.solved(lab), as_version=4)  # type: ignore[no-untyped-call]
    shown: Any = nbformat.reads(build.student(lab), as_version=4)  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory(prefix="book-") as directory:
        kept = {name: os.environ.get(name) for name in ("MINICONTAINER_LABS_ROOT", "IPYTHONDIR")}
        os.environ |= {"MINICONTAINER_LABS_ROOT": f"{directory}/labs", "IPYTHONDIR": f"{directory}/ipython"}
        try:
            place = {"metadata": {"path": directory}}
            NotebookClient(notebook, timeout=PATIENCE, kernel_name="python3", resources=place).execute()
        finally:
            for name, value in kept.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
    for cell, student in zip(notebook.cells, shown.cells, strict=True):
        cell.source = student.source
    return notebook


def photographed(pages: Sequence[Path]) -> list[Path]:
    """A PNG of each page, light and dark, if there is a chromium here; else none."""
    chromium = os.environ.get("CHROMIUM", shutil.which("chromium") or shutil.which("chromium-browser"))
    if not chromium:
        return []
    made = []
    for page in pages:
        for mode, option in (("light", ""), ("dark", "--blink-settings=preferredColorScheme=0")):
            picture = page.with_name(f"{page.stem}-{mode}.png")
            with tempfile.TemporaryDirectory(prefix="book-") as profile:
                command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
                command += ["--hide-scrollbars", f"--window-size=1100,{_height(page)}", f"--screenshot={picture}"]
                subprocess.run(
                    [*command, *filter(None, [option]), page.resolve().as_uri()],
                    check=True,
                    capture_output=True,
                    timeout=PATIENCE,
                )
            _cut(picture)
            made.append(picture)
    return made


def _height(page: Path) -> int:
    """About as high as the page will be; what is too much stays empty."""
    text = page.read_text(encoding="utf-8")
    return min(16000, 1500 + 24 * text.count("\n") + 350 * text.count("<img"))


def _cut(picture: Path) -> None:
    """Take away what is empty at the foot."""
    from PIL import Image, ImageChops

    with Image.open(picture) as opened:
        image = opened.convert("RGB")
    empty = Image.new("RGB", image.size, image.getpixel((0, image.height - 1)))
    if box := ImageChops.difference(image, empty).getbbox():
        image.crop((0, 0, image.width, min(box[3] + 20, image.height))).save(picture)


def _page(out: Path, name: str, title: str, body: str, labs: Sequence[Lab]) -> Path:
    links = [("index.html", "The course")] + [
        (f"{lab.number}-{lab.name}.html", f"{lab.number} {lab.name}") for lab in labs
    ]
    here = ' aria-current="page"'
    way = "".join(f'<a href="{to}"{here if to == name else ""}>{html.escape(text)}</a>' for to, text in links)
    page = out / name
    page.write_text(
        f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="stylesheet" href="style.css">'
        f'</head>\n<body><nav aria-label="labs">{way}</nav>\n<main>\n{body}\n</main></body></html>\n',
        encoding="utf-8",
    )
    return page


def _cells(notebook: Any, lab: Lab, out: Path) -> str:
    parts, pictures = [f'<p class="none">{_HEAD}</p>'], 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(_markdown(cell.source))
            continue
        parts.append(f'<div class="input">{_coloured(cell.source)}</div>')
        for output in _joined(cell.outputs):
            data = output.get("data", {})
            if output.output_type == "stream":
                kind = "stderr" if output.name == "stderr" else "output"
                parts.append(f'<div class="{kind}"><pre>{_plain(output.text)}</pre></div>')
            elif output.output_type == "error":
                parts.append(f'<div class="stderr"><pre>{_plain(chr(10).join(output.traceback))}</pre></div>')
            elif kinds := {"image/svg+xml", "image/png"} & {*data}:
                import base64

                pictures += 1
                kind = max(kinds)
                picture = out / f"{lab.number}-{pictures}.{kind[6:9]}"
                drawn = data[kind]
                picture.write_bytes(drawn.encode() if kind == "image/svg+xml" else base64.b64decode(drawn))
                alt = html.escape(output.metadata.get(kind, {}).get("alt", data.get("text/plain", "")))
                parts.append(f'<div class="output"><img src="{picture.name}" alt="{alt}"></div>')
            else:
                shown = data.get("text/html") or f"<pre>{_plain(data.get('text/plain', ''))}</pre>"
                parts.append(f'<div class="output">{shown}</div>')
        if not cell.outputs and not cell.source.startswith(("%load_ext", "%%exercise")):
            parts.append('<p class="none">(no output)</p>')
    return "\n".join(parts)


def _joined(outputs: Sequence[Any]) -> list[Any]:
    """Outputs, with what came in several pieces over one stream as one."""
    found: list[Any] = []
    for output in outputs:
        if found and output.output_type == found[-1].output_type == "stream" and output.name == found[-1].name:
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def _markdown(text: str) -> str:
    """HTML; a heading can be led to by its words, as on GitHub."""
    import mistune

    def named(found: re.Match[str]) -> str:
        words = re.sub(r"<[^>]+>|[^\w\s-]", "", found[2]).strip().lower().replace(" ", "-")
        return f'<h{found[1]} id="{words}">{found[2]}</h{found[1]}>'

    made = str(mistune.create_markdown(plugins=["table", "url"])(text))
    return re.sub(r"<h(\d)>(.*?)</h\1>", named, made)


def _coloured(source: str) -> str:
    if source.startswith("%%predict"):
        return f"<pre>{html.escape(source)}</pre>"
    from pygments import highlight  # type: ignore[import-untyped]
    from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]
    from pygments.lexers import PythonLexer  # type: ignore[import-untyped]

    return str(highlight(source, PythonLexer(), HtmlFormatter()))


def _colours() -> str:
    from pygments.formatters import HtmlFormatter

    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    # To the highlighter a "!" is an error, and to IPython it is not.
    clear = ".highlight { background: none; }\n.highlight .err { border: none; color: inherit; }"
    return f"{light}\n{clear}\n@media (prefers-color-scheme: dark) {{\n{dark}\n{clear}\n}}\n"


def _plain(text: str) -> str:
    return html.escape(re.sub(r"\x1b\[[0-9;]*m", "", text))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="labs book", description="Make a static site of the course, with outputs.")
    parser.add_argument("labs", nargs="*", metavar="NN", help="only these labs (default: all)")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="write it there (default: build/book)")
    options = parser.parse_args(arguments)
    try:
        pages = book([find(number) for number in options.labs] or every(), options.out)
    except (build.BadSource, NoSuchLab) as error:
        print(f"labs book: {error}", file=sys.stderr)
        return 1
    pictures = photographed(pages)
    told = f", {len(pictures)} photographs of them" if pictures else "; no chromium here, so no photographs of them"
    print(f"{len(pages)} pages in {options.out}{told}: open {pages[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
