"""Draws a recorded terminal as an SVG: `python tools/picture.py docs/assets/run.ansi` writes `run.svg` beside it.

The recording is what a terminal received, as `script -qc "krie run" FILE` keeps it; lines may be left out of it.
"""

from __future__ import annotations

import sys
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

_WIDTH = 118


def picture(recording: Path) -> str:
    """The recording as an SVG document, which needs no script and asks no server for a font."""
    console = Console(record=True, width=_WIDTH, file=StringIO(), force_terminal=True)
    console.print(Text.from_ansi(recording.read_text().replace("\r", "")))
    svg = console.export_svg(title="krie run", theme=MONOKAI, unique_id=recording.stem)
    head, _, rest = svg.partition("@font-face")  # rich's style names fonts of a server; local ones do
    return head + rest[rest.index(f".{recording.stem}-matrix") :] if rest else svg


if __name__ == "__main__":
    for each in map(Path, sys.argv[1:]):
        each.with_suffix(".svg").write_text(picture(each))
