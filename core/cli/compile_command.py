"""`krie compile`: what it is given, what it prints."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..agent.compiling import Entry, compile_configuration
from ..config import load_config
from ..kernel.btf import Btf
from ..kernel.image import types_of
from ..output import complain, say, say_json


def compile_command(
    config: Path, output: Path, *, btf: Path | None, vmlinux: Path | None, kernel: str, as_json: bool
) -> None:
    """Compile for another kernel, and say what came of it. Raises `KrieError`."""
    types = _lab_types(kernel) if kernel else types_of(btf or vmlinux or Path())
    entries = []
    for entry in compile_configuration(load_config(config), str(config), types, output):
        entries.append(entry)
        if not as_json:
            say(f"{output / entry.key}: {'compiled' if entry.new else 'was there'}, for krie {entry.purpose}")
    if as_json:
        say_json([_as_json(each, output) for each in entries])


def _lab_types(kernel: str) -> Btf:
    from ..testing.lab.cache import Cache  # noqa: PLC0415 - only here anything of the lab is needed
    from ..testing.lab.kernels import find  # noqa: PLC0415

    return types_of(find(kernel, Cache(), partial(complain, by="krie compile")).image)


def _as_json(entry: Entry, folder: Path) -> dict[str, object]:
    return {
        "file": str(folder / entry.key),
        "purpose": entry.purpose,
        "sensors": list(entry.sensors),
        "compiler": entry.made.compiler,
        "new": entry.new,
    }
