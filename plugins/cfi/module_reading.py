"""Reads the files of loaded modules, in a process of its own: which of their places call locked functions.

A module is taken for its file by its name, as modules.dep has it, and its build id, as the kernel has it. Where the
kernel put its code, the kernel says; from the code in memory nothing is taken.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from krie import AnyFile, KernelFile, KrieError, module_file, module_files

from .module_file import Calls, calls_in

_NICE = 10
_LOADED = KernelFile("/sys/module")


def read(name: str, files: Mapping[str, Path], through: Mapping[str, list[str]], loaded: AnyFile) -> dict[str, Any]:
    """What one calls, with addresses; or why nobody knows."""
    try:
        own = loaded / name
        found = calls_in(module_file(name, files, own), through)
        starts = {each: int((own / f"sections/{each}").read_bytes(), 16) for each in found.sections}
    except (KrieError, OSError, ValueError) as error:
        return {"problem": str(error)}
    return _placed(found, starts)


def _placed(found: Calls, starts: Mapping[str, int]) -> dict[str, Any]:
    return {
        "code": [[starts[name], length] for name, length in found.sections.items()],
        "legal": {
            function: [starts[section] + offset for section, offset in places]
            for function, places in found.places.items()
            if places
        },
        "open": found.open,
    }


def main() -> None:
    """Answer what is asked, both as JSON."""
    os.nice(_NICE)  # it is waited for by nobody
    question: dict[str, Any] = json.load(sys.stdin)
    try:
        files = module_files(Path("/lib/modules", os.uname().release))
    except KrieError as error:
        answer = {name: {"problem": str(error)} for name in question["modules"]}
    else:
        answer = {name: read(name, files, question["through"], _LOADED) for name in question["modules"]}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
