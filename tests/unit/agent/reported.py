"""A policy and a probe that an agent tells about."""

from krie import Action, Alternative, AttachType, Event, Probe, Program
from krie.plugin.report import ProbeReport
from krie.policy.policy import Policy

from ...policy.sample import Sample
from ...policy.subjects import subject

RULES = subject(("NUMBER", "kill", ["input.event.number == 5"]), ("NAME", "kill", ['input.event.name == "x"']))
POLICY = Policy(RULES.engine, on_error=Action.LOG, memo=0)


def probe(name: str, state: str, event: type[Event] | None = Sample, plugin: str = "sample") -> ProbeReport:
    program = Program(AttachType.LSM, "file_open", f"sample_{name}")
    way = Alternative("lsm", (program,), fields=frozenset({"number"}), limits="sees little")
    chosen = None if state == "missing" else way
    return ProbeReport(plugin, Probe(name, event, (way,)), chosen, state, {"lsm": "EPERM\nmore"})
