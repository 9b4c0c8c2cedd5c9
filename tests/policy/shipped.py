"""The shipped policies as sources of a bundle, and OPA, which is asked about it."""

import subprocess
from pathlib import Path

from krie.policy.sources import read_sources

ROOT = Path(__file__).parents[2]
OPA = ROOT / ".cache/tools/opa"
SHIPPED = [ROOT / "policies" / each for each in ("agent", "cfi", "runtime_integrity", "smep_smap", "syscall_table")]
SOURCES = read_sources(SHIPPED, {"executables": {"apt": "/usr/bin/apt"}})
SITE = 'package krie.site\n\nrules contains {"id": "SITE", "action": "log"} if input.event.kind == "a.b"\n'


def opa(*arguments: object, document: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [OPA, *map(str, arguments)], input=document, capture_output=True, text=True, timeout=60, check=False
    )
