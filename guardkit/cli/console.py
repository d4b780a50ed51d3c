"""Tables on a terminal, in which no cell can write more than text."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from guardkit.cli.terminal import written_to
from guardkit.text.visible import visible

LOG_WIDTH = 120  # a file or a pipe has no width of its own


def console(*, err: bool = False) -> Console:
    """Return what prints tables, as wide as the terminal if it is one."""
    stream = sys.stderr if err else sys.stdout
    return SafeConsole(
        width=None if stream.isatty() else LOG_WIDTH,
        stderr=err,
        highlight=False,
        markup=False,  # a label may be [/red]
        emoji=False,
    )


class SafeConsole(Console):
    """A console that spells out what nobody sees and leaves a reader who went away to ``main``."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            # control segments are rich's own: they move a progress bar
            shown = segment.text if segment.control else visible(segment.text)
            yield segment if shown == segment.text else Segment(shown, segment.style)

    def print(self, *objects: Any, **options: Any) -> None:
        with written_to(err=self.stderr):
            super().print(*objects, **options)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would exit with 1
