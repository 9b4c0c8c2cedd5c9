"""What `krie doctor` tells: what this kernel offers, which probes are alive and why, and which rules are blind.

Made by a running agent out of what it has, or by a trial (see `krie.agent.examination`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..decision import Mode
from ..enforce.containment import NAME as CONTAINMENT
from ..enforce.containment import refused_operations
from ..enforce.guard_sensor import NAME as GUARD
from ..events.event import EventTypes
from ..events.operations import OPERATIONS
from ..loader.origin import Origin
from ..plugin.manager import Plugins
from ..plugin.report import ProbeReport
from ..policy.engine import Rule
from ..privileges import locked_down
from ..timings import Phase
from ..version import version
from .blindness import BlindRule, blind_rules, missing_fields
from .health import ProbeHealth
from .load_facts import LoadFacts
from .loading import Attached
from .policy_in_force import PolicyInForce


@dataclass(frozen=True, slots=True)
class Report:
    """What the doctor tells."""

    agent: int | None
    """Tgid of the running agent that reports; None: everything was tried for this report."""
    version: str
    """Of KRIe."""
    release: str
    refused: Mapping[str, str]
    """Attach types that the kernel refuses, and why."""
    modes: Mapping[str, Mode]
    """By plugin."""
    probes: tuple[ProbeReport, ...]
    containment: tuple[ProbeReport, ...]
    """The core's probes that refuse guarded operations to poisoned processes; none where they were not loaded."""
    guard: tuple[ProbeReport, ...]
    """Those that refuse to strangers what would stop the agent; none where they were not loaded."""
    rules: int
    blind: tuple[BlindRule, ...]
    problems: tuple[str, ...]
    """Names in the policy that nothing has, and executables that are not there."""
    degraded: Mapping[str, str]
    """Plugins that do not work, and why."""
    timings: tuple[Phase, ...]
    """What the start took, the agent's or the trial's."""
    programs: Origin = Origin.COMPILED
    """Where the programs come from."""
    programs_problem: str = ""
    """Why a folder of compiled programs was of no use; empty where all is well."""
    lockdown: str = ""
    """How far the kernel is locked down; empty: not at all, or it does not say."""
    revision: str = ""
    """Of the policy."""
    engine: Mapping[str, Any] | None = None
    """How the OPA server stands that is to decide; None: there is none, or it was not asked for this report."""

    @property
    def enforces(self) -> bool:
        """Some plugin is in mode `enforce`."""
        return Mode.ENFORCE in self.modes.values()

    @property
    def healthy(self) -> bool:
        """All configured probes and plugins work, no rule is blind, an OPA server that is to decide does so and, where
        something enforces, poison and the agent's guard hold.

        Optional probes may be missing.
        """
        needed = (*self.probes, *((*self.containment, *self.guard) if self.enforces else ()))
        return (
            not self.degraded
            and not self.blind
            and (self.engine is None or self.engine["deciding"] == "opa")
            and all(
                each.state in ("alive", "attached") or (each.state == "missing" and each.probe.optional)
                for each in needed
            )
        )

    def to_json(self) -> dict[str, Any]:
        """For `krie doctor --json`, and for `krie.cli.render_doctor`."""
        contained = refused_operations(self.containment)
        return {
            "from": None if self.agent is None else {"agent": self.agent},
            "healthy": self.healthy,
            "version": self.version,
            "programs": {"from": self.programs, "problem": self.programs_problem},
            "kernel": {"release": self.release, "refused": dict(self.refused), "lockdown": self.lockdown},
            "modes": {name: str(mode) for name, mode in sorted(self.modes.items())},
            "probes": [
                {
                    **_stand(each),
                    "optional": each.probe.optional,
                    "every_syscall": each.alternative.every_syscall if each.alternative is not None else False,
                    "limits": each.alternative.limits if each.alternative is not None else "",
                    "not_filled": sorted(missing_fields(each)),
                    "can": sorted(each.alternative.can) if each.alternative is not None else [],
                }
                for each in self.probes
            ],
            "containment": {
                "loaded": bool(self.containment),
                "enforces": self.enforces,
                "refused": len(contained),
                "of": len(OPERATIONS),
                "probes": [{**_stand(each), "refuses": each in contained} for each in self.containment],
            },
            "guard": {"loaded": bool(self.guard), "probes": [_stand(each) for each in self.guard]},
            "policy": self.revision,
            "engine": dict(self.engine) if self.engine is not None else None,
            "rules": self.rules,
            "blind_rules": [{"id": each.rule.id, "place": each.rule.place, "why": each.why} for each in self.blind],
            "problems": list(self.problems),
            "degraded": dict(self.degraded),
            "timings": [each.to_json() for each in self.timings],
        }


def _stand(report: ProbeReport) -> dict[str, Any]:
    return {
        "name": report.name,
        "state": report.state,
        "alternative": report.alternative.name if report.alternative is not None else None,
        "alternatives": dict(report.reasons),
        "reason": report.reason,
    }


def diagnose(
    facts: LoadFacts,
    plugins: Plugins,
    probes: ProbeHealth,
    types: EventTypes,
    rules: Sequence[Rule],
    problems: Iterable[str],
    *,
    agent: int | None,
    revision: str = "",
    engine: Mapping[str, Any] | None = None,
) -> Report:
    """Look at what is loaded, in the state of its last check, and at the policy's rules.

    `problems`: what `krie.agent.policy_files.problems_of` finds. For the others see `Report`.
    """
    reports = probes.reports
    return Report(
        agent=agent,
        version=version(),
        release=facts.features.release,
        refused={str(type_): why for type_, why in facts.features.refused.items()},
        modes=plugins.modes,
        probes=tuple(each for each in reports if each.plugin not in (CONTAINMENT, GUARD)),
        containment=tuple(each for each in reports if each.plugin == CONTAINMENT),
        guard=tuple(each for each in reports if each.plugin == GUARD),
        rules=len(rules),
        blind=tuple(blind_rules(rules, reports, types)),
        problems=tuple(problems),
        degraded={**plugins.degraded, **probes.raised},
        timings=facts.timings.phases(),
        programs=facts.programs,
        programs_problem=facts.programs_problem,
        lockdown=locked_down(),
        revision=revision,
        engine=engine,
    )


def diagnose_running(armed: Attached, in_force: PolicyInForce, problems: Iterable[str]) -> Report:
    """The same by the agent itself, of what it has and of the policy by which it decides."""
    return diagnose(
        armed.facts,
        armed.plugins,
        armed.probes,
        armed.types,
        in_force.policy.rules,
        problems,
        agent=os.getpid(),
        revision=in_force.policy.revision,
        engine=in_force.engine(),
    )
