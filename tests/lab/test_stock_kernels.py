"""The kernel tests on an old and on a current stock kernel. `make test` starts each before all else, on its own."""

from typing import Any

import pytest
from krie.events.operations import OPERATIONS

from . import findings, suite, suites

UNPROVEN = ("smep_smap.", "syscall_table.", "runtime_integrity.look_", "runtime_integrity.seccomp_")
"""How the names of probes begin that no canary can prove alive."""
ONE_PLACE = ("smep_smap.set_memory_ro_far", "smep_smap.set_memory_rw_far")
"""Second traps in functions that have one call or jump only; `krie doctor` tells that they are missing."""


@pytest.mark.parametrize("wanted", [each for each in suites.SUITES if each.always], ids=lambda each: each.label)
def test_the_suite(wanted: suites.Suite) -> None:
    outcome = suite.run(wanted)
    found = findings.findings(wanted)
    said = (wanted.results / "output").read_text(errors="replace")
    assert findings.passed(outcome, found), "\n".join(
        [
            f"{outcome.end.value} after {outcome.seconds:.0f} s",
            findings.compiled_anyway(found),
            *found.failed,
            *found.why,
            said[-2_000:],
            *outcome.console,
        ]
    )
    probes: dict[str, dict[str, Any]] = {each["name"]: each for each in found.doctor["probes"]}
    assert {each["state"] for name, each in probes.items() if not name.startswith(UNPROVEN)} == {"alive"}
    unproven = {each["state"] for name, each in probes.items() if name.startswith(UNPROVEN) and name not in ONE_PLACE}
    assert unproven == {"alive", "attached"}
    assert {probes[name]["state"] for name in ONE_PLACE} == {"missing"}
    assert probes["smep_smap.commit_creds"]["state"] == "alive"
    taken = {name: each["alternative"] for name, each in probes.items()}
    assert taken["runtime_integrity.ptrace"] == wanted.alternative
    assert taken["runtime_integrity.bpf"] == wanted.alternative + ("_prog_load" if wanted.shows_programs else "")
    for probe in ("module_load", "module_unload", "socket_filter", "perf_event_open"):
        assert taken[f"runtime_integrity.{probe}"] == wanted.alternative
    assert taken["runtime_integrity.sysctl_write"] == "cgroup_sysctl"
    assert taken["runtime_integrity.probe_register"] == "fentry"
    assert taken["runtime_integrity.commit_again"] == "kprobe"
    contained = found.doctor["containment"]
    assert contained["refused"] == contained["of"] == len(OPERATIONS)
    assert {each["alternative"] for each in contained["probes"]} == {wanted.alternative, "raw_tracepoint"}
