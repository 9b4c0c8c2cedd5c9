"""Rules without a kernel: which of them fire for an event, and which tier decides them.

rules = Rules("my_plugin")
assert rules.fired(build(Open, write=True), program="apt") == {"MINE001"}
assert rules.tier("MINE001") == "kernel"
"""

from __future__ import annotations

from collections.abc import Mapping

from ..agent.policy_files import event_fields
from ..config import Config
from ..decision import Action, Decision
from ..errors import PolicyError
from ..events.event import Event
from ..events.identity import Identity
from ..events.wire import Json
from ..kernel.cgroups import Cgroups
from ..kernel.features import Features
from ..plugin.manager import Plugins
from ..plugin.offline import event_types
from ..policy.embedded import EmbeddedEngine
from ..policy.policy import Policy
from ..policy.unknown_names import unknown_names
from ..processes.enrich import Enricher, host
from ..processes.table import ProcessTable
from ..tier.subject import subject_of
from ..tier.tried import sources_of


class Rules:
    """All rules of one installed plugin, with the core's own, decided as an agent does it."""

    def __init__(self, plugin: str, *, executables: Mapping[str, str] | None = None, **keys: Json) -> None:
        """`executables`: as in krie.toml; `keys`: those of the plugin's section there.

        Raises what an agent that requires the plugin would end with, `PluginError`, `ConfigError` or `PolicyError`; the
        last one also where a rule reads what its events do not have.
        """
        config = Config(plugins={plugin: {**keys, "required": True}}, executables=dict(executables or {}))
        plugins = Plugins.load(config, "krie.testing.rules", Features(), lambda _: None)
        types = event_types(plugins)
        engine = EmbeddedEngine(sources_of(config, plugins))
        if problems := unknown_names(engine.rules, event_fields(types, plugins.facts)):
            raise PolicyError("\n".join(problems))
        self._names = {each.event: each.name for each in types}
        table = ProcessTable(1, lambda _: Identity(0, 0, 0))
        self._enricher = Enricher(types, table, Cgroups(None), plugins.enrichers())
        self._policy = Policy(engine, on_error=Action.LOG, memo=0)
        self._placements = subject_of(config, plugins, engine).tiers.placements

    def fired(self, event: Event, *, facts: Mapping[str, Json] | None = None, **process: Json) -> set[str]:
        """Ids of the rules that fire; see `decide`. Raises `AssertionError` where a rule cannot be evaluated."""
        decision = self.decide(event, facts=facts, **process)
        assert not decision.error, decision.error
        return {each.id for each in decision.rules}

    def decide(self, event: Event, *, facts: Mapping[str, Json] | None = None, **process: Json) -> Decision:
        """The decision, in user space, for an event of a process that is known as little as its record tells.

        `facts` replace what `input.event` has besides the event's fields, `process` what `input.process` has.
        """
        document: dict[str, Json] = {
            "event": {**self._enricher.event(event), **(facts or {})},
            "process": {**self._enricher.process(event), "ancestors": self._enricher.ancestors(event), **process},
            "host": dict(host()),
            "health": {},
        }
        return self._policy.decide(self._names[type(event)], document)

    def tier(self, rule: str) -> str:
        """`kernel` or `user`, as far as probes that can carry the rule out are attached; see `krie policy explain`."""
        found = {each.tier for each in self._placements if each.rule.id == rule}
        assert found, f"no rule about a program's events has the id {rule}"
        return "kernel" if found == {"kernel"} else "user"
