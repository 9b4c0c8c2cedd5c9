"""An inline field that the C never fills is found: the kernel would decide by a zero."""

from pathlib import Path

import pytest
from krie import Sensor
from krie.kernel.features import Features
from krie.plugin.contract import joined
from krie.plugins.runtime_integrity.config import RuntimeIntegrityConfig
from krie.plugins.runtime_integrity.plugin import RuntimeIntegrity
from krie.plugins.runtime_integrity.ptrace import Ptrace
from krie.testing.inline_fields import unfilled

STRUCT = "struct runtime_integrity_ptrace_inline"


def found(folder: Path, c: str) -> set[str]:
    """The fields of ptrace that are told, with this C."""
    (folder / "own.bpf.c").write_text(c)
    told = unfilled(Sensor("runtime_integrity", "1", events=(Ptrace,), sources=(folder / "own.bpf.c",)))
    return {each.partition(":")[0].removeprefix("Ptrace.") for each in told}


@pytest.fixture
def all_of_them(tmp_path: Path) -> set[str]:
    return found(tmp_path, "")


def test_all_of_what_no_source_declares(all_of_them: set[str]) -> None:
    assert {"target_tgid", "operation"} <= all_of_them


@pytest.mark.parametrize(
    ("c", "filled"),
    [
        (f"{STRUCT} known = {{ .target_tgid = 1, }};", {"target_tgid"}),
        (f"{STRUCT} known = {{}}; known.operation = 2;", {"operation"}),
        (f"void f({STRUCT} *known) {{ known->operation = 2; }}", {"operation"}),
        (f"{STRUCT} known = {{}}; record->operation = 2; /* known.operation = 2 */", set()),
        ("struct other known = {}; known.operation = 2;", set()),
        (f"{STRUCT} known = {{}}; if (known.operation == 2) return;", set()),
        (f"{STRUCT} known = {{}}; at(known.operation, flags & known.target_tgid, sizeof(known.target_comm));", set()),
        (f"{STRUCT} known = {{}}; known.operation |= 2; known.target_tgid++;", {"operation", "target_tgid"}),
        (
            f"{STRUCT} known = {{}}; read(4, &known.operation); put((void *)&known.target_tgid);",
            {"operation", "target_tgid"},
        ),
        (f"{STRUCT} known = {{}}; read(known.target_comm, sizeof(known.target_comm), from);", {"target_comm"}),
        (f"{STRUCT} known = {{}}; known.target_comm[0] = 0;", {"target_comm"}),
    ],
)
def test_what_is_filled_is_not_told(tmp_path: Path, all_of_them: set[str], c: str, filled: set[str]) -> None:
    assert found(tmp_path, c) == all_of_them - filled


def test_a_shipped_plugin_fills_its_own() -> None:
    sensor = joined(RuntimeIntegrity().krie_sensor(RuntimeIntegrityConfig(), Features()))
    assert list(unfilled(sensor)) == []
