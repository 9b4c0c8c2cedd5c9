"""What `krie compile` makes, keeps and refuses, with a compiler that is none."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from krie.agent.compiling import compile_into_folder, plugin_sensors, units
from krie.config import Config
from krie.errors import CompileError, ConfigError, KernelError, LoaderError
from krie.kernel.btf import Btf
from krie.loader import isolated
from krie.loader.compiler import CompilationError
from krie.loader.isolated import compile_isolated
from krie.loader.object import Object
from krie.loader.source import Unit
from krie.loader.unit_cache import Store

from ..btf_file import BtfFile

OWN = "containment, guard, process"
MADE = Object({}, {"krie_inspect": bytes(8)}, "none")


@pytest.fixture
def btf(tmp_path: Path) -> Btf:
    made = BtfFile()
    made.struct("task_struct", 8, [("tgid", made.integer("int"), 4)])
    return Btf(str(made.write(tmp_path / "btf")))


def wanted(btf: Btf, *names: str) -> dict[str, Unit]:
    return dict(units(plugin_sensors(Config(plugins={name: {} for name in names}), "test"), btf))


class Compiler:
    """Counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, unit: Unit, btf: Btf, flags: Sequence[str]) -> Object:
        self.asked.append(unit.sensors)
        return MADE


def test_everything_that_a_configuration_asks_for(btf: Btf) -> None:
    both = wanted(btf, "runtime_integrity", "smep_smap")
    assert {purpose: unit.sensors for purpose, unit in both.items()} == {
        "run, doctor": ("containment", "guard", "process", "runtime_integrity", "smep_smap"),
        "policy verify": ("runtime_integrity", "smep_smap"),
    }
    assert list(wanted(btf)) == ["run, doctor"]
    with pytest.raises(ConfigError, match="nothing"):
        wanted(btf, "nothing")


def test_what_is_there_is_not_compiled_again(btf: Btf, tmp_path: Path) -> None:
    folder, compiler = tmp_path / "out", Compiler()
    first = list(compile_into_folder(wanted(btf, "smep_smap"), btf, folder, compiler))
    assert [each.new for each in first] == [True, True]
    assert sorted(each.name for each in folder.iterdir()) == sorted(each.key for each in first)
    second = list(compile_into_folder(wanted(btf, "smep_smap"), btf, folder, compiler))
    assert [(each.key, each.new) for each in second] == [(each.key, False) for each in first]
    assert len(compiler.asked) == 2
    (folder / first[0].key).write_bytes(b"damaged")
    third = list(compile_into_folder(wanted(btf, "smep_smap"), btf, folder, compiler))
    assert [each.new for each in third] == [True, False]
    assert Store(folder).find(first[0].key) == MADE


def test_a_folder_that_cannot_be_written_is_named(btf: Btf, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(KernelError, match=f"keeping what was compiled: .*{tmp_path / 'out'}"):
        list(compile_into_folder(wanted(btf), btf, tmp_path / "out", Compiler()))


def pretend(monkeypatch: pytest.MonkeyPatch, compile_unit: object) -> None:
    monkeypatch.setattr(isolated, "compile_unit", compile_unit)
    monkeypatch.setattr(Unit, "write", lambda *_: None)


def test_what_the_child_makes_comes_back(btf: Btf, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, lambda *_: Object({}, {name: bytes(8) for name in sorted(os.environ)}))
    monkeypatch.setenv("CPATH", "/home/somebody")
    (unit,) = wanted(btf).values()
    assert list(compile_isolated(unit, btf, []).functions) == ["LANG", "PATH"]


def test_whatever_the_child_does_is_one_error(btf: Btf, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Object:
        os.write(2, b"process/process.bpf.c:1:2: error: no\n\n")
        raise CompilationError

    def crash(*_: object) -> Object:
        os.write(2, b"LLVM ERROR: odd\n")
        os.kill(os.getpid(), signal.SIGKILL)
        return MADE

    def have_none(*_: object) -> Object:
        raise KernelError("loading the compiler", 0, "install the package python3-bpfcc")

    (unit,) = wanted(btf).values()
    for does, error, text in (
        (
            refuse,
            CompileError,
            "sensor containment, guard, process does not compile:\nprocess/process.bpf.c:1:2: error: no",
        ),
        (crash, LoaderError, "the compiler was ended by SIGKILL:\nLLVM ERROR: odd"),
        (have_none, KernelError, "loading the compiler; install the package python3-bpfcc"),
        (lambda *_: 1 / 0, LoaderError, "the compiler exited with status 255:\nZeroDivisionError: division by zero"),
    ):
        pretend(monkeypatch, does)
        with pytest.raises(error) as raised:
            compile_isolated(unit, btf, [])
        assert str(raised.value) == text
