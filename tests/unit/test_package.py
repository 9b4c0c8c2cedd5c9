"""The public names of `krie`: all there, typed, and imported only when they are asked for."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import krie
import pytest
from packaging.version import Version
from setuptools_scm import get_version

ROOT = Path(__file__).parents[2]
IMPORTED = 'import sys; print(*(name for name in sys.modules if name.startswith("krie")))'


def imported(code: str) -> set[str]:
    """Modules of KRIe that a fresh interpreter has after this."""
    command = [sys.executable, "-I", "-c", f"{code}\n{IMPORTED}"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(found.stdout.split())


def for_type_checkers() -> dict[str, str]:
    """Module by name, as the imports say that only type checkers see."""
    tree = ast.parse(Path(krie.__file__).read_text())
    block = next(each for each in tree.body if isinstance(each, ast.If))
    imports = [each for each in block.body if isinstance(each, ast.ImportFrom)]
    return {name.name: f"krie.{each.module}" for each in imports for name in each.names}


@pytest.mark.parametrize("name", krie.__all__)
def test_a_name_is_what_type_checkers_take_it_for(name: str) -> None:
    module = importlib.import_module(for_type_checkers()[name])
    assert getattr(krie, name) is getattr(module, name)


def test_type_checkers_know_the_same_names() -> None:
    assert sorted(for_type_checkers()) == sorted(krie.__all__)
    assert set(krie.__all__) <= set(dir(krie))
    assert len(set(krie.__all__)) == len(krie.__all__)


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    assert not {each for each in imported("import krie; dir(krie)") if each.startswith("krie.")}
    assert imported("from krie import KrieError") == {"krie", "krie.errors", "krie.exhaustion"}


def test_a_star_takes_all_names() -> None:
    names: dict[str, object] = {}
    exec("from krie import *", names)
    assert set(krie.__all__) <= names.keys()


def test_there_is_no_other_name() -> None:
    with pytest.raises(AttributeError, match="module 'krie' has no attribute 'Evnt'"):
        getattr(krie, "Evnt")  # noqa: B009 - mypy would refuse the other way
    with pytest.raises(ImportError, match="cannot import name 'Evnt'"):
        exec("from krie import Evnt")


def test_all_modules_of_the_ground_are_a_layer() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    ground = contracts[0]["layers"][-1].split(" : ")
    assert ground == sorted({each.stem for each in (ROOT / "core").glob("*.py")} - {"__init__", "start"})


def test_the_core_knows_no_plugin() -> None:
    """But for where the commands of one are, which are imported when somebody asks for them."""
    modules = {each: each.read_text() for each in (ROOT / "core").rglob("*.py")}
    found = [name for text in modules.values() for name in re.findall(r"\bkrie\.plugins\.[\w.:]+", text)]
    assert found == ["krie.plugins.cfi.commands:cfi"]
    assert not [each for each, text in modules.items() if re.search(r"(from|import) \.+plugins\b", text)]


@pytest.mark.parametrize("in_git", [False, True])
def test_a_development_version_is_older_than_the_first_release(tmp_path: Path, in_git: bool) -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools_scm"]
    if in_git:
        git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run([*git, "init", "-q"], check=True)
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "a"], check=True)
    made = Version(get_version(root=str(tmp_path), **options))
    assert Version("0.0.9") < made < Version("0.1.0")
