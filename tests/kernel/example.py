"""Writes a third party's plugin into a folder: module, metadata and C, as an installed distribution has them."""

import time
from collections.abc import Mapping
from pathlib import Path

Place = tuple[str, str, str, int]
"""Attach type, target, C function, offset."""
EXECS = "import os; os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)"
"""A canary that runs another program."""
BUSY = "import time; end = time.process_time() + 1; all(time.process_time() < end for _ in iter(int, 1))"
"""A canary that takes 1 s of a CPU, however fast it is: a perf event comes while its CPU is busy, to whoever has it."""
_MODULE = '''
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from krie import *

@dataclass(frozen=True, slots=True)
class Seen(Event):
    """The probe ran."""
    KIND = 0x9001
    NAME = "example.seen"
    {fields}

def canary():
    {canary}

@hookimpl
def krie_sensor():
    def probe(name, type_, target, function, offset):
        program = Program(AttachType(type_), target, function, offset)
        return Probe(name, Seen, (Alternative("only", (program,), can=frozenset(Enforcement)),), {has_canary})

    probes = tuple(probe(name, *place) for name, place in {probes!r}.items())
    return Sensor("example", "1", probes, (Seen,), (Path(__file__).with_name("example.bpf.c"),))
'''
_SEEN = """
{function}
{{
    struct example_seen *record;

    if (!krie_enter())
        return 0;
    record = krie_reserve_example_seen(NULL, 0);
    if (!record)
        return 0;
    record->count = {value};
    krie_submit_example_seen(record);
    return 0;
}}
"""


def be_busy() -> None:
    """Take a CPU for 0.3 s."""
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass


def seen(name: str, argument: str = "void *ctx", value: str = "1") -> str:
    """C of a program that sends a record each time it runs."""
    return _SEEN.format(function=f"int {name}({argument})", name=name, value=value)


COUNT = 'count: Annotated[U64, Doc("a number")]'
"""The field of `example.seen`, where a test needs no others."""


def write(folder: Path, probes: Mapping[str, Place], source: str, canary: str = "", fields: str = COUNT) -> Path:
    """Write the plugin `example` with these probes, which share a canary (Python code)."""
    folder.mkdir()
    has_canary = "canary" if canary else "None"
    text = _MODULE.format(probes=dict(probes), canary=canary or "pass", has_canary=has_canary, fields=fields)
    (folder / "example_plugin.py").write_text(text)
    (folder / "example.bpf.c").write_text(source)
    metadata = folder / "example_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: example-plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[krie]\nexample = example_plugin\n")
    return folder
