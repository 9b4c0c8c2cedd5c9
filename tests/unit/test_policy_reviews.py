"""The commands of docs/how-to/review-a-policy-change.md, run as they stand there: they print what the page says."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/review-a-policy-change.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = "from krie.cli.main import main; main()"
REVISION = re.compile(r"\b[0-9a-f]{16}\b")


def steps() -> Iterator[tuple[str, str]]:
    """Each command with what it prints."""
    for block in BLOCK.findall(PAGE.read_text()):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = step.partition("\n")
            yield command, output


def run(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Each command with what the page says that it prints, and what it printed."""
    home = folder / "ci"
    shutil.copytree(ROOT / "examples" / "ci", home)
    folder.chmod(0o700)
    tools = folder / "bin"
    tools.mkdir()
    (tools / "krie").write_text(f'#!/bin/sh\nexec {sys.executable} -I -c "{COMMAND}" "$@"\n')
    (tools / "krie").chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "KRIE_CONFIG")}
    environment = {**kept, "PATH": f"{tools}:{os.environ['PATH']}"}
    for command, said in steps():
        ran = subprocess.run(
            ["sh", "-c", command], cwd=home, env=environment, capture_output=True, text=True, timeout=600
        )
        assert not ran.stderr, (command, ran.stderr)
        yield command, said, ran.stdout


def test_the_page_is_true(tmp_path: Path) -> None:
    for command, said, printed in run(tmp_path):
        # Revisions are those of the shipped rules, too, which change.
        assert REVISION.sub("0" * 16, printed) == REVISION.sub("0" * 16, said), command
