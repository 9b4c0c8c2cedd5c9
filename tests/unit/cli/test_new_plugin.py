"""`krie plugin new` writes what the example is, and nothing over what is there."""

import ast
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from krie.cli.new_plugin import new_plugin, plugin
from krie.errors import ConfigError

EXAMPLE = Path(__file__).parents[3] / "examples/krie-clock"
LEFT_BY_PIP = {"build", "krie_clock.egg-info", "__pycache__", ".pytest_cache"}


def content(folder: Path) -> dict[str, str]:
    files = [each for each in folder.rglob("*") if each.is_file()]
    return {
        str(each.relative_to(folder)): each.read_text()
        for each in files
        if not LEFT_BY_PIP & set(each.relative_to(folder).parts)
    }


def test_the_example_is_what_is_written(tmp_path: Path) -> None:
    wanted = "rm -r examples/krie-clock && krie plugin new clock --into examples"
    assert content(new_plugin("clock", tmp_path)) == content(EXAMPLE), wanted


def test_another_name(tmp_path: Path) -> None:
    written = content(new_plugin("usb_door", tmp_path))
    assert 'usb_door = "krie_usb_door.plugin:Plugin"' in written["pyproject.toml"]
    assert {"plugin.py", "usb_door.bpf.c", "policy/usb_door.rego"} <= {each.partition("/")[2] for each in written}
    assert [each for each in written if re.search(r"clock|settime", each)] == []
    text = "".join(written.values())
    assert not re.search(r"@\w+@|clock_settime_|CLOCK001", text)
    assert "usb_door_settime_hook" in text
    assert 'name = "krie-usb-door"' in written["pyproject.toml"]
    kinds = [
        re.findall(r"KIND: .*= (0x\w+)", each[f"krie_{name}/events.py"])[0]
        for name, each in (("usb_door", written), ("clock", content(EXAMPLE)))
    ]
    assert kinds[0] != kinds[1]
    assert all(0x8000 <= int(each, 16) <= 0xFFFF for each in kinds)


def test_what_is_printed_says_what_to_do_next(tmp_path: Path) -> None:
    """KRIe is in no index: pip shall not look for it there."""
    said = CliRunner().invoke(plugin, ["new", "usb_door", "--into", str(tmp_path)]).output
    assert f"  cd {tmp_path}/krie-usb-door\n" in said
    assert f"  {sys.executable} -m pip install --no-deps --no-build-isolation -e .  " in said
    assert f"  {sys.executable} -m pytest  " in said
    assert "or below /tmp, it is not loaded" in said
    for needed in ("setuptools", "pytest", "virtme-ng", "QEMU", "krie lab fetch", "a sample, to be replaced"):
        assert needed in said
    assert "usb_door.bpf.c" in said


def test_pip_looks_for_no_krie_in_an_index(tmp_path: Path) -> None:
    project = tomllib.loads((new_plugin("door", tmp_path) / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == []


def test_only_its_owner_can_write_it_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = new_plugin("door", tmp_path)
    finally:
        os.umask(before)
    assert {each.stat().st_mode & 0o022 for each in (made, *made.rglob("*"))} == {0}
    assert [each.name for each in tmp_path.iterdir()] == ["krie-door"]


@pytest.mark.parametrize("name", ["", "Door", "my-door", "1door", "_door", "door_", "a__b", "x" * 33, "../door", "däu"])
def test_names_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="a plugin's name is of lower-case letters, digits and single underscores"):
        new_plugin(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("import", "a word of Rego's"),
        ("process", "of the core's own"),
        ("runtime_integrity", r"is installed already \(krie\)"),
    ],
)
def test_names_that_are_taken(tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        new_plugin(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "krie-door").mkdir()
    with pytest.raises(ConfigError, match="krie-door: exists already; nothing was written"):
        new_plugin("door", tmp_path)
    assert list((tmp_path / "krie-door").iterdir()) == []
    with pytest.raises(ConfigError, match="nowhere: there is no such folder; make it first"):
        new_plugin("door", tmp_path / "nowhere")


def test_the_example_uses_public_names_only() -> None:
    for file in EXAMPLE.rglob("*.py"):
        if LEFT_BY_PIP & set(file.relative_to(EXAMPLE).parts):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            modules += [each.name for each in node.names] if isinstance(node, ast.Import) else []
            for each in modules:
                public = each in ("krie", "krie_clock") or each.startswith(("krie.testing.", "krie_clock."))
                assert public or each.partition(".")[0] != "krie", f"{file}: {each}"
            if isinstance(node, ast.ImportFrom) and node.module == "krie":
                import krie

                assert {each.name for each in node.names} <= set(krie.__all__), file
