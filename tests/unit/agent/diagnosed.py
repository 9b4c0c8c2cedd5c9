"""What a diagnosis says of probes that a test gives it."""

from types import SimpleNamespace
from typing import Any

from krie import Alternative, AttachType, Enforcement, Probe, Program
from krie.agent.diagnosis import Report, diagnose
from krie.decision import Mode
from krie.enforce.containment import NAME
from krie.events.operations import OPERATIONS
from krie.plugin.report import ProbeReport

from ..kernel_side import KernelSide, armed
from .reported import POLICY


def contained(*states: str) -> list[ProbeReport]:
    """The containment sensor's probes, with these states of the first ones; the others are alive."""
    made = []
    for number, name in enumerate([*OPERATIONS.values(), "inheritance"]):
        programs = (Program(AttachType.LSM, name, f"{NAME}_{name}"),)
        by = "raw_tracepoint" if name == "inheritance" else "lsm"
        way = Alternative(by, programs, can=frozenset({Enforcement.REFUSE}))
        state = states[number] if number < len(states) else "alive"
        taken = way if state != "missing" else None
        made.append(ProbeReport(NAME, Probe(name, None, (way,)), taken, state, {"lsm": "EPERM\nmore"}))
    return made


def found(*reports: ProbeReport, agent: int | None = None, mode: Mode = Mode.OBSERVE, **more: object) -> Report:
    parts: dict[str, Any] = {"problems": (), "rules": POLICY.rules, "degraded": {}, **more}
    plugins = SimpleNamespace(degraded=parts["degraded"], modes={"sample": mode})
    kernel = armed(KernelSide(), reports=reports, plugins=plugins)
    return diagnose(
        kernel.facts, kernel.plugins, kernel.probes, kernel.types, parts["rules"], parts["problems"], agent=agent
    )
