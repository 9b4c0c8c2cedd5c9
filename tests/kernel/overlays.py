"""File systems that lie on each other, as a container's root does on its image."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[None]:
    """A file system, until the end; whoever still runs from it may go on."""
    subprocess.run(["mount", *options, place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@contextmanager
def overlaid(folder: Path, below: str, name: str) -> Iterator[Path]:
    """`folder`/`name`: an overlay on `folder`/`below`, with an upper folder of its own beside it."""
    for each in (name, f"{name}-upper", f"{name}-work"):
        (folder / each).mkdir()
    places = f"lowerdir={folder / below},upperdir={folder / name}-upper,workdir={folder / name}-work"
    with mounted(folder / name, "-t", "overlay", "overlay", "-o", places):
        yield folder / name
