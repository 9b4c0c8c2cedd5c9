"""What tests of the locks share."""

from pathlib import Path

import pytest
from krie.kernel.symbols import Symbols
from krie.plugins.cfi import lock
from krie.plugins.cfi.live import locate

from .locked import KALLSYMS, Background


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "kallsyms").write_text(KALLSYMS)
    (tmp_path / "modules").write_text("krie_test 16384 0 - Live 0x0\n")
    monkeypatch.setattr(lock, "_MODULES", tmp_path / "modules")
    monkeypatch.setattr(lock, "_LIVE_PATCHES", tmp_path / "livepatch")
    monkeypatch.setattr(lock, "Symbols", lambda: Symbols((), tmp_path / "kallsyms"))
    monkeypatch.setattr(lock, "locate", lambda names, begins: locate(names, begins, tmp_path / "kallsyms"))
    monkeypatch.setattr(lock, "Derivation", Background)
    return tmp_path
