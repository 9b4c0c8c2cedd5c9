"""What a program imports: of its start-up time the larger part, and the one that can be tested without a clock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def imported_by(*arguments: str, cwd: Path) -> frozenset[str]:
    """Modules that Python imports when it is run with these arguments; its own end does not matter."""
    command = [sys.executable, "-I", "-X", "importtime", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "KRIE_CONFIG"}
    said = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=environment).stderr
    names = [line.rpartition("|")[2].strip() for line in said.splitlines() if line.startswith("import time:")]
    # A package that is imported only because a module of it is asked for is not in the list.
    return frozenset(".".join(parts[:count]) for parts in map(_parts, names) for count in range(1, len(parts) + 1))


def _parts(name: str) -> list[str]:
    return name.split(".")
