"""What is checked and formatted is all of it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("file", "how"), [("tools/check", "--dry-run --Werror"), ("Makefile", "-i")])
def test_all_c_is_formatted(file: str, how: str) -> None:
    found = re.search(rf"clang-format\"? {how} (.*)", (ROOT / file).read_text())
    assert found is not None
    named = {each for pattern in found[1].split() for each in ROOT.glob(pattern)}
    folders = ("bpf", "core", "plugins", "examples", "tests")
    assert named == {each for folder in folders for each in (ROOT / folder).rglob("*.[ch]")}


def test_a_commit_formats_c_too() -> None:
    assert "clang-format -i" in (ROOT / ".pre-commit-config.yaml").read_text()
