"""What is compiled is the same whatever is configured, found or chosen."""

from __future__ import annotations

import pytest
from krie.kernel.features import Features
from krie.kernel.program import AttachType
from krie.plugin.contract import joined
from krie.plugin.probe import Sensor
from krie.plugins.cfi.plugin import Cfi, CfiConfig
from krie.plugins.runtime_integrity.config import RuntimeIntegrityConfig
from krie.plugins.runtime_integrity.plugin import RuntimeIntegrity
from krie.plugins.smep_smap.plugin import SmepSmap, SmepSmapConfig
from krie.plugins.syscall_table.config import SyscallTableConfig
from krie.plugins.syscall_table.plugin import SyscallTable

NO_TRACING = Features(refused={AttachType.FENTRY: "EPERM", AttachType.LSM: "EPERM", AttachType.FMOD_RET: "EPERM"})


def runtime_integrity(config: RuntimeIntegrityConfig, features: Features) -> Sensor:
    return joined(RuntimeIntegrity().krie_sensor(config, features))


@pytest.mark.parametrize(
    "other",
    [
        runtime_integrity(RuntimeIntegrityConfig(map_access=True, watch_credentials=False), Features()),
        runtime_integrity(RuntimeIntegrityConfig(), NO_TRACING),
        SmepSmap().krie_sensor(SmepSmapConfig(functions={"f": "any"}, traps=False, kernel_stack=True), Features()),
        Cfi().krie_sensor(CfiConfig(functions=("f",), acts=True), Features()),
        SyscallTable().krie_sensor(SyscallTableConfig(alias_mappings=False, wrapped=("read",)), Features()),
    ],
)
def test_sources_and_constants_depend_on_no_configuration(other: Sensor) -> None:
    plain = {
        "runtime_integrity": lambda: runtime_integrity(RuntimeIntegrityConfig(), Features()),
        "smep_smap": lambda: SmepSmap().krie_sensor(SmepSmapConfig(), Features()),
        "cfi": lambda: Cfi().krie_sensor(CfiConfig(), Features()),
        "syscall_table": lambda: SyscallTable().krie_sensor(SyscallTableConfig(), Features()),
    }[other.name]()
    assert (other.sources, other.defines, other.shared, other.types, other.events) == (
        plain.sources,
        plain.defines,
        plain.shared,
        plain.types,
        plain.events,
    )
