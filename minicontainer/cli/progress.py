"""Progress on a terminal: a bar for each layer, drawn by rich, which is imported here and nowhere else."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from minicontainer.images.documents import Descriptor
from minicontainer.images.transfer import Progress, is_layer


@contextlib.contextmanager
def bars() -> Iterator[Progress]:
    """Drawn until the end of the block. Without colours where NO_COLOR is set (no-color.org); rich sees to that."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Display

    name, state = TextColumn("{task.description}"), TextColumn("{task.fields[state]}")
    columns = (name, BarColumn(), DownloadColumn(), TransferSpeedColumn(), state)
    with Display(*columns, console=Console(file=sys.stdout)) as display:
        tasks = dict[str, TaskID]()

        def task(blob: Descriptor) -> TaskID:
            if blob.digest not in tasks:
                tasks[blob.digest] = display.add_task(blob.digest[7:19], total=blob.size, state="")
            return tasks[blob.digest]

        class Bars(Progress):
            """A row for each layer."""

            def begin(self, blob: Descriptor) -> None:
                if is_layer(blob):
                    task(blob)

            def advance(self, blob: Descriptor, count: int) -> None:
                if is_layer(blob):
                    display.advance(task(blob), count)

            def end(self, blob: Descriptor, how: str) -> None:
                if is_layer(blob):
                    display.update(task(blob), completed=blob.size, state=how)

            def remark(self, text: str) -> None:
                display.console.print(text, style="yellow", markup=False, highlight=False)

        yield Bars()
