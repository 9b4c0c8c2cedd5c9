"""`krie doctor`: what this kernel offers, which probes are alive and why, and which rules are blind.

Everything is attached for a moment and tried, as the agent would; nothing is sent and nothing stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from .armed import load_sensors
from .blindness import BlindRule, blind_rules, missing_fields
from .config import Config
from .containment import NAME as CONTAINMENT
from .containment import OPERATIONS, guarded
from .decision import Mode
from .executables import resolve
from .health import ProbeReport
from .kernel.origin import Origin
from .plugin_guard import PluginFault
from .policy.ability import cannot, sent_kinds, ways_here
from .policy.analysis import unknown_names
from .policy.domain import Numbers
from .policy.embedded import EmbeddedEngine
from .policy.engine import Rule
from .policy.explain import Explained, explain, modes_by_kind
from .policy.reload import event_fields, policy_folders, programs_differ, read_policy
from .policy.tier import find_tiers
from .timings import Phase
from .version import version


@dataclass(frozen=True, slots=True)
class Report:
    """What the doctor found."""

    release: str
    refused: Mapping[str, str]
    """Attach types that the kernel refuses, and why."""
    probes: tuple[ProbeReport, ...]
    rules: tuple[Rule, ...]
    blind: tuple[BlindRule, ...]
    problems: tuple[str, ...]
    """Names in the policy that nothing has, and executables that are not there."""
    degraded: Mapping[str, str]
    """Plugins that do not work, and why."""
    containment: tuple[ProbeReport, ...]
    """The core's probes that refuse guarded operations to poisoned processes."""
    enforces: bool
    """Some plugin is in mode `enforce`."""
    explained: tuple[Explained, ...]
    """Where each rule is decided on this machine."""
    version: str
    """Of KRIe."""
    timings: tuple[Phase, ...]
    """What it took to find this out."""
    programs: Origin = Origin.COMPILED
    """Where the programs come from."""
    programs_problem: str = ""
    """Why a folder of compiled programs was of no use; empty where all is well."""

    @property
    def healthy(self) -> bool:
        """All configured probes and plugins work, no rule is blind and, where something enforces, poison holds.

        Optional probes may be missing.
        """
        needed = (*self.probes, *(self.containment if self.enforces else ()))
        return (
            not self.degraded
            and not self.blind
            and all(
                each.state in ("alive", "attached") or (each.state == "missing" and each.probe.optional)
                for each in needed
            )
        )

    def to_json(self) -> dict[str, Any]:
        """For `krie doctor --json`."""
        return {
            "healthy": self.healthy,
            "version": self.version,
            "programs": {"from": self.programs, "problem": self.programs_problem},
            "kernel": {"release": self.release, "refused": dict(self.refused)},
            "probes": [
                {
                    **_stand(each),
                    "every_syscall": each.alternative.every_syscall if each.alternative is not None else False,
                    "limits": each.alternative.limits if each.alternative is not None else "",
                    "not_filled": sorted(missing_fields(each)),
                    "can": sorted(each.alternative.can) if each.alternative is not None else [],
                }
                for each in self.probes
            ],
            "containment": {
                "enforces": self.enforces,
                "refused": len(guarded(self.containment)),
                "of": len(OPERATIONS),
                "probes": [_stand(each) for each in self.containment],
            },
            "rules": len(self.rules),
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
    }


def examine(config: Config, place: str) -> Report:
    """Try everything that the configuration names. Raises `KrieError` where not even that is possible."""
    faults: list[PluginFault] = []
    with ExitStack() as stack:
        armed = load_sensors(config, place, faults.append, stack, contain=True)
        with armed.timings.phase("policy"):
            engine = EmbeddedEngine(read_policy(config, policy_folders(config, armed.plugins)))
        executables = resolve(config.executables, armed.inspector.identify)
        stack.callback(executables.close)
        rules = engine.rules
        ways = ways_here(armed.probes.reports)
        with armed.timings.phase("policy"):
            tiers = find_tiers(
                engine,
                sent_kinds(ways, armed.types),
                Numbers().following(executables.names),
                partial(cannot, ways),
                programs_differ=programs_differ(executables.overlaid),
            )
        return Report(
            release=armed.features.release,
            refused={str(type_): why for type_, why in armed.features.refused.items()},
            probes=tuple(each for each in armed.probes.reports if each.plugin != CONTAINMENT),
            containment=tuple(each for each in armed.probes.reports if each.plugin == CONTAINMENT),
            enforces=any(mode is Mode.ENFORCE for mode in armed.modes.values()),
            rules=rules,
            explained=tuple(explain(tiers, ways, rules, modes_by_kind(armed.sensors, armed.modes))),
            blind=tuple(blind_rules(rules, armed.probes.reports, armed.types)),
            problems=(
                *unknown_names(rules, event_fields(armed.types, armed.plugins.facts)),
                *(f"executables.{name}: {why}" for name, why in executables.unresolved.items()),
            ),
            degraded={
                **armed.plugins.degraded,
                **{each.plugin: each.error for each in faults if each.hook == "canary"},
            },
            version=version(),
            timings=armed.timings.phases(),
            programs=armed.origin,
            programs_problem=armed.loaded.loaded.cache_problem,
        )
