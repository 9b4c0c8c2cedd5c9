"""The public names of `krie`: all there, typed, and imported only when they are asked for."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import krie
import pytest

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
