"""Writes the tables of README.md and the page policies/README.md from the code: `make docs`. A test compares them.

Between `<!-- table: NAME -->` and `<!-- end -->` lies what `TABLES[NAME]` gives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from krie.agent_events import AGENT_EVENTS
from krie.config import Config, load_config
from krie.containment import OPERATIONS
from krie.enforcement_events import ENFORCEMENT_EVENTS
from krie.enforcer import WORDS
from krie.errors import ExitCode
from krie.event import EventType, own_fields
from krie.installed import available
from krie.kernel.features import Features
from krie.plugin_manager import Plugins
from krie.policy.embedded import EmbeddedEngine
from krie.policy.engine import Rule
from krie.policy.subject import subject_of
from krie.policy.tried import sources_of
from krie.probe import Probe, Sensor
from krie.process_sensor import process_sensor
from pydantic import BaseModel

ROOT = Path(__file__).resolve().parent.parent
MANUAL, RULES = ROOT / "README.md", ROOT / "policies/README.md"
_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
Row = Iterable[str]


def pages() -> dict[Path, str]:
    """What is written, by its place: the manual with its tables as the code has them now, and the rules' page."""
    place = ROOT / "krie.toml"
    config = load_config(place)
    config = config.model_copy(update={"plugins": {**{each: {} for each in _shipped()}, **config.plugins}})
    plugins = Plugins.load(config, str(place), Features(), lambda fault: _fail(fault.error))

    def fresh(text: str) -> str:
        return _BLOCK.sub(lambda block: f"{block[1]}{TABLES[block[2]](config, plugins)}{block[3]}", text)

    return {MANUAL: fresh(MANUAL.read_text()), RULES: _rules_page(config, plugins)}


def _shipped() -> list[str]:
    """Also those that krie.toml leaves for the administrator to switch on."""
    return sorted(name for name, entry in available().items() if entry.dist is not None and entry.dist.name == "krie")


def _events(_: Config, plugins: Plugins) -> str:
    rows = [(f"`{each.name}`", f"`{each.kind:#06x}`", _sentence(each.event.__doc__)) for each in _types(plugins)]
    return _table(("event", "kind", "what happened"), rows)


def _fields(_: Config, plugins: Plugins) -> str:
    tables = []
    for each in _types(plugins):
        if each.event in (*AGENT_EVENTS, *ENFORCEMENT_EVENTS):
            continue
        rows = [(f"`{field.name}`", "yes" if field.inline else "", field.doc) for field in each.own_fields]
        rows += [(f"`{name}`", "", "the process: tgid, start time, executable ...") for name in each.event.PROCESSES]
        facts: dict[str, Any] = dict(plugins.facts(each.name))
        rows += [(f"`{name}`", "", str(fact.get("description", ""))) for name, fact in facts.items()]
        tables.append(f"`{each.name}`\n\n{_table(('field', 'inline', 'meaning'), rows)}")
    return "\n".join(tables)


def _probes(_: Config, plugins: Plugins) -> str:
    rows: list[Row] = []
    for sensor in (process_sensor(), *_sensors(plugins)):  # those of containment are a sentence in the text
        for probe in sensor.probes:
            rows += _alternatives(sensor.name, probe)
    return _table(("probe", "by", "attached to", "could enforce", "fields it does not fill", "limits"), rows)


def _alternatives(sensor: str, probe: Probe) -> Iterator[Row]:
    for each in probe.alternatives:
        filled = each.fields or (own_fields(probe.event) if probe.event is not None else frozenset())
        missing = own_fields(probe.event) - filled if probe.event is not None else frozenset()
        limits = ["**every system call is slower**"] if each.every_syscall else []
        yield (
            f"`{sensor}.{probe.name}`",
            each.name,
            ", ".join(f"`{program.target}`" for program in each.programs if program.target and not program.through),
            ", ".join(sorted(map(str, each.can))) or "-",
            ", ".join(f"`{name}`" for name in sorted(missing)) or "-",
            "; ".join([*limits, *([each.limits] if each.limits else [])]) or "-",
        )


def _rules(config: Config, plugins: Plugins) -> str:
    engine = EmbeddedEngine(sources_of(config, plugins))
    rules = sorted((rule for package in engine.packages for rule in package.rules), key=lambda rule: rule.id)
    tiers = subject_of(config, plugins, engine).tiers
    in_kernel = {each.rule.id for each in tiers.placements if not each.why}
    rows = [
        (
            each.id,
            each.metadata.title,
            each.metadata.severity,
            each.action,
            "kernel" if each.id in in_kernel else "user",
            ", ".join(f"`{kind}`" for kind in sorted(each.kinds)),
        )
        for each in rules
    ]
    return _table(("rule", "fires when", "severity", "action", "tier", "on"), rows)


def _rules_page(config: Config, plugins: Plugins) -> str:
    engine = EmbeddedEngine(sources_of(config, plugins))
    tiers = subject_of(config, plugins, engine).tiers
    in_kernel = {each.rule.id for each in tiers.placements if not each.why}
    sections = (
        _rule_section(each, in_kernel) for each in sorted(engine.rules, key=lambda rule: (rule.package, rule.id))
    )
    return _RULES_HEAD + "".join(sections)


def _rule_section(rule: Rule, in_kernel: set[str]) -> str:
    about = rule.metadata
    technique = f"[{about.technique}]({_ATTACK}/{about.technique.replace('.', '/')}/)" if about.technique else "-"
    where = Path(rule.place.rpartition(":")[0]).relative_to(ROOT / "policies")
    cells = (
        about.severity,
        rule.action,
        "kernel" if rule.id in in_kernel else "user",
        technique,
        ", ".join(f"`{kind}`" for kind in sorted(rule.kinds)),
        f"[{where}]({where})",
    )
    head = ("severity", "action", "tier", "ATT&CK", "on", "in")
    return f"\n## {rule.id}: {about.title}\n\n{_table(head, [cells])}\n{about.description}\n\n**Seen:** {about.seen}\n"


_ATTACK = "https://attack.mitre.org/techniques"
_RULES_HEAD = """# The rules that ship with KRIe

Made from the METADATA above each rule by `make docs`. What the words mean, how rules are decided and how they are
tried is in the [manual](../README.md#policies). *Seen* says what somebody who works on the machine notices where the
rule is enforced, and which ordinary work the rule may meet; an action above `log` touches nothing while the plugin's
mode is `observe`. ATT&CK names the technique that the event may belong to. The data beside the rules (`.json`) and
`[executables]` in `krie.toml` are where a machine's exceptions go; `krie policy explain ID` says the same of a rule
as it is configured.
"""


def _keys(_: Config, plugins: Plugins) -> str:
    rows: list[Row] = []
    sections = {"agent", "journal", "policy", "enforcement"}
    for name, field in Config.model_fields.items():
        if name in sections:
            assert isinstance(field.annotation, type)
            rows += _keys_of(name, field.annotation)
        elif name == "executables":
            rows.append(("`executables.<name>`", "", field.description or ""))
    for each in plugins.loaded:
        rows += _keys_of(f"plugins.{each.name}", type(each.config))
    return _table(("key", "default", "meaning"), rows)


def _keys_of(section: str, model: type[BaseModel]) -> Iterator[Row]:
    for name, field in model.model_fields.items():
        default = str(field.default).lower() if isinstance(field.default, bool) else repr(field.default)
        shown = "[]" if field.default == () else default.replace("'", '"')
        yield f"`{section}.{name}`", f"`{shown}`", field.description or ""


def _exit_codes(_config: Config, _plugins: Plugins) -> str:
    return _table(("code", "meaning"), [(str(each.value), each.meaning) for each in ExitCode])


def _done(_config: Config, _plugins: Plugins) -> str:
    return _table(("`done`", "what happened"), [(f"`{word}`", meaning) for word, meaning in WORDS.items()])


def _guarded(_config: Config, _plugins: Plugins) -> str:
    return f"{', '.join(f'`{each}`' for each in OPERATIONS.values())}\n"


TABLES: dict[str, Callable[[Config, Plugins], str]] = {
    "events": _events,
    "fields": _fields,
    "probes": _probes,
    "rules": _rules,
    "configuration": _keys,
    "exit_codes": _exit_codes,
    "done": _done,
    "guarded": _guarded,
}
"""What each table is made of."""


def _types(plugins: Plugins) -> list[EventType]:
    events = [*AGENT_EVENTS, *ENFORCEMENT_EVENTS, *(event for sensor in _sensors(plugins) for event in sensor.events)]
    return sorted(map(EventType, events), key=lambda each: each.kind)


def _sensors(plugins: Plugins) -> list[Sensor]:
    return [each.sensor for each in plugins.loaded if each.sensor is not None]


def _sentence(doc: str | None) -> str:
    return " ".join((doc or "").split("\n\n")[0].split())


def _table(columns: Row, rows: Iterable[Row]) -> str:
    lines = [tuple(columns), ("---",) * len(tuple(columns)), *map(tuple, rows)]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _fail(problem: str) -> None:
    raise SystemExit(problem)


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text)
