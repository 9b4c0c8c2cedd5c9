"""The manual's tables are those of the code, and it names what there is."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_tables_are_fresh() -> None:
    pages = runpy.run_path(str(ROOT / "tools/readme.py"))["pages"]
    for page, text in pages().items():
        assert page.read_text() == text, "run `make docs`"


def test_the_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)`", README)) <= targets


def test_the_files_exist() -> None:
    named = set(re.findall(r"`((?:core|bpf|plugins|policies|tests|tools)/[\w./]*)`", README))
    assert named
    assert [each for each in sorted(named) if not (ROOT / each).exists()] == []
