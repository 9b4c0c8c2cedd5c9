"""Kernel modules are built once for each kernel and source, and a failure tells what the compiler said."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from krie.errors import LabError
from krie.testing.lab import modules
from krie.testing.lab.cache import Cache
from krie.testing.lab.kernels import Kernel


class FakeToolchain:
    """A compiler that only counts."""

    def __init__(self) -> None:
        self.runs: list[list[str]] = []
        self.makes: tuple[str, ...] = ("made.ko",)
        self.error = ""

    def run(self, command: Sequence[str], work: Path, folders: Sequence[Path] = ()) -> str:
        self.runs.append(list(command))
        if self.error:
            raise LabError(self.error)
        for name in self.makes:
            (work / name).touch()
        return ""


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> FakeToolchain:
    made = FakeToolchain()
    monkeypatch.setattr(modules, "toolchain", lambda *_: made)
    return made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "Makefile").write_text("obj-m := made.o\n")
    (folder / "made.c").write_text("int x;\n")
    return folder


def _build(tmp_path: Path, source: Path, release: str = "6.1.0") -> Path:
    kernel = Kernel("a", release, tmp_path / "vmlinuz", tmp_path)
    return modules.build_module(kernel, source, Cache(tmp_path / "lab"), lambda _: None)


def test_a_module_is_built_once_a_kernel_and_source(tools: FakeToolchain, tmp_path: Path, source: Path) -> None:
    first = _build(tmp_path, source)
    assert first.name == "made.ko"
    assert (_build(tmp_path, source), len(tools.runs)) == (first, 1)
    assert "/usr/src/linux-headers-6.1.0" in tools.runs[0]
    assert _build(tmp_path, source, "6.2.0") != first
    (source / "made.c").write_text("int y;\n")
    assert _build(tmp_path, source) != first
    assert len(tools.runs) == 3


def test_a_build_that_fails_leaves_nothing(tools: FakeToolchain, tmp_path: Path, source: Path) -> None:
    tools.error = "made.c:1: error"
    with pytest.raises(LabError, match=r"made\.c:1: error"):
        _build(tmp_path, source)
    assert not [each for each in (tmp_path / "lab").iterdir() if each.is_dir()]


def test_what_cannot_be_built_is_told(tools: FakeToolchain, tmp_path: Path, source: Path) -> None:
    with pytest.raises(LabError, match="no headers are known for /boot/vmlinuz"):
        modules.build_module(Kernel("vmlinuz", "", Path("/boot/vmlinuz")), source, Cache(tmp_path), lambda _: None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(LabError, match="holds no Makefile"):
        _build(tmp_path, tmp_path / "empty")
    tools.makes = ("a.ko", "b.ko")
    with pytest.raises(LabError, match="makes 2 modules instead of one"):
        _build(tmp_path, source)
