"""The process that derives locks: what it gets, hands over, and says where it fails."""

import io
import json
import os
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from krie.errors import KernelError
from krie.plugins.cfi import background, derived
from krie.plugins.cfi.background import Derivation
from krie.plugins.cfi.derived import Derived
from krie.plugins.cfi.live import code_of

from .locked import BASE, KALLSYMS, Memory

CHILD = """
import json, os, sys
question = json.load(sys.stdin)
code = os.pread(question["copy"], 1 << 20, 0)
{act}
print(json.dumps({{"legal": {{"f": [len(code), code[0]]}}, "certain": question["functions"], "callers": 1,
    "differences": [question["build_id"]], {more}}}))
"""


def derivation(act: str = "", more: str = "", memory: Any = None) -> Derived:
    """By a child like this one."""
    program = [sys.executable, "-I", "-c", CHILD.format(act=act, more=more)]
    made = Derivation(memory or Memory(), [range(4, 8), range(16, 20)], "00", ["f"], program)
    while (answer := made.answer()) is None:
        time.sleep(0.01)
    return answer


def test_the_child_gets_a_copy_and_hands_over_what_it_found() -> None:
    found = derivation()
    assert found == Derived({"f": [8, 0xCC]}, ["f"], 1, ["00"])


@pytest.mark.parametrize(
    ("act", "more", "said"),
    [
        ("sys.exit('no memory')", "", "exited with status 1: no memory"),
        ("os.kill(os.getpid(), 9)", "", "was ended by SIGKILL"),
        ("", '"problem": "no code"', "no code"),
    ],
)
def test_a_child_that_fails_says_why(act: str, more: str, said: str) -> None:
    with pytest.raises(KernelError, match=said):
        derivation(act, more)


def test_memory_that_cannot_be_read_starts_no_child() -> None:
    class Unreadable:
        def pieces(self, address: int, size: int) -> Iterator[tuple[int, bytes]]:
            raise KernelError(f"reading {size} bytes at {address}", 14)

    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(KernelError, match="reading 4 bytes at 4"):
        derivation(memory=Unreadable())
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_stop_waits_for_nothing() -> None:
    program = [sys.executable, "-I", "-c", "import time; time.sleep(600)"]
    made = Derivation(Memory(), [range(4)], "", [], program)
    assert made.answer() is None
    made.stop()


def test_the_program_derives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = b"\xe8" + struct.pack("<i", 0x40 - 5)
    copy = os.memfd_create("copy")
    os.write(copy, call.ljust(0x1000, b"\xcc"))
    (tmp_path / "kallsyms").write_text(KALLSYMS)
    question = {"copy": copy, "ranges": [[BASE, 0x1000]], "build_id": "", "functions": ["twice"]}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(question)))
    monkeypatch.setattr(derived, "code_of", lambda read, ranges: code_of(read, ranges, tmp_path / "kallsyms"))
    monkeypatch.setattr(os, "nice", lambda _: 0)
    derived.main()
    os.close(copy)
    found = json.loads(capsys.readouterr().out)
    legal, through = {"commit_creds": [BASE + 5]}, found.pop("through")
    assert found == {"legal": legal, "certain": [], "callers": 1, "differences": []}
    assert through["commit_creds"] == ["commit_creds"]
    assert Derived(**background._checked("", json.dumps(found).encode(), b"", 0)).callers == 1
