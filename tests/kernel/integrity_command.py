"""`krie integrity` as a responder runs it."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_KRIE = [sys.executable, "-I", "-c", "from krie.cli.main import main; main()"]


@dataclass(frozen=True, slots=True)
class Look:
    """What it printed and returned."""

    exit_code: int
    report: Mapping[str, Any]

    def check(self, name: str) -> Mapping[str, Any]:
        (found,) = (each for each in self.report["checks"] if each["name"] == name)
        return dict(found)

    def differences(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """With the check's name."""
        for check in self.report["checks"]:
            yield from ((check["name"], each) for each in check["differences"])


def looked() -> Look:
    """One look."""
    done = subprocess.run([*_KRIE, "integrity", "--json"], capture_output=True, text=True)
    assert done.stdout, done.stderr
    return Look(done.returncode, json.loads(done.stdout))
