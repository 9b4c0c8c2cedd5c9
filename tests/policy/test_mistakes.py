"""What compiles and cannot be meant is told, with its place and the mend; what may be meant is not."""

import importlib
import json
import time
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner
from krie.agent.health import health_facts
from krie.cli.policy import policy as policy_command
from krie.config import Config
from krie.errors import PolicyError
from krie.kernel.features import Features
from krie.plugin.manager import Plugins
from krie.plugin.offline import event_types
from krie.policy.embedded import EmbeddedEngine
from krie.policy.mistakes import HEALTH_SCHEMA, HOST_SCHEMA, Mistake
from krie.policy.sources import PolicyFile, PolicySources, read_sources
from krie.processes.enrich import host
from krie.review.warnings import warnings

from .idioms import IDIOMS
from .test_checks import DATA

ROOT = Path(__file__).parents[2]
CONFIG = Config.model_validate(
    {
        "plugins": {"runtime_integrity": {}, "smep_smap": {}},
        "executables": {"apt": "/usr/bin/apt", "sysctl": "/usr/sbin/sysctl"},
    }
)
SYSCTL, BPF, PTRACE = (f"runtime_integrity.{each}" for each in ("sysctl_write", "bpf", "ptrace"))
DOCUMENTS: dict[str, Any] = {
    **DATA,
    "executables": dict(CONFIG.executables),
    "protected_sysctls": {"kernel/x": {"least": 1}, "kernel/y": {"most": 0}},
    "programs": ["sshd", "sudo"],
    "numbers": [1, 2],
    "nothing": [],
    "no_names": {},
}


@cache
def plugins() -> Plugins:
    return Plugins.load(CONFIG, "krie.toml", Features(), print)


def told(*texts: str, data: dict[str, Any] | None = None) -> list[Mistake]:
    files = tuple(PolicyFile(f"p{number}.rego", text) for number, text in enumerate(texts))
    engine = EmbeddedEngine(PolicySources(files, DOCUMENTS if data is None else data, "r"))
    return warnings(engine, CONFIG, plugins())


def rule(body: str, more: str = "", *, kind: str = SYSCTL, head: str = "") -> str:
    text = f'{head}rules contains {{"id": "R1", "action": "log"}} if {{\n\tinput.event.kind == "{kind}"\n{body}\n}}\n'
    return f"package krie.site\n\n{text}{more}"


# What, and the message; the first three lines are the package, an empty one, and the head.
TOLD = {
    "a value that an enumeration does not have": (
        rule('\tinput.event.change == "lowr"'),
        'p0.rego:5:2: rule R1: "lowr" is not a value of input.event.change; did you mean lower?',
    ),
    "not equal to it": (
        rule('\tinput.event.change != "lowr"'),
        'p0.rego:5:2: rule R1: "lowr" is not a value of input.event.change; did you mean lower?',
    ),
    "one of several": (
        rule('\tinput.event.change in {"lower", "highr"}'),
        'p0.rego:5:2: rule R1: "highr" is not a value of input.event.change; did you mean higher?',
    ),
    "by a variable": (
        rule('\tchange := input.event.change\n\tchange == "lowr"'),
        'p0.rego:6:2: rule R1: "lowr" is not a value of input.event.change; did you mean lower?',
    ),
    "in a helper": (
        rule("\tweakens", 'weakens if input.event.change == "lowr"\n'),
        'p0.rego:7:12: rule R1: "lowr" is not a value of input.event.change; did you mean lower?',
    ),
    "by a function's argument": (
        rule("\tweakens(input.event.change)", 'weakens(how) if how == "lowr"\n'),
        'p0.rego:7:17: rule R1: "lowr" is not a value of input.event.change; did you mean lower?',
    ),
    "by a constant rule": (
        rule("\tinput.event.change in changes", 'changes := {"lower", "highr"}\n'),
        'p0.rego:5:2: rule R1: "highr" is not a value of input.event.change; did you mean higher?',
    ),
    "by an import": (
        rule('\tevent.change == "lowr"').replace("krie.site\n", "krie.site\nimport input.event\n"),
        'p0.rego:6:2: rule R1: "lowr" is not a value of input.event.change; did you mean lower?',
    ),
    "a flag that there is not": (
        rule('\t"stack_usr" in input.event.failed', kind="smep_smap.register_check"),
        'p0.rego:5:2: rule R1: "stack_usr" is not a value of input.event.failed[_]; did you mean stack_user?',
    ),
    "a flag by a variable": (
        rule(
            '\tsome check in {"return_user", "retrn_text"}\n\tcheck in input.event.failed',
            kind="smep_smap.register_check",
        ),
        'p0.rego:6:2: rule R1: "retrn_text" is not a value of input.event.failed[_]; did you mean return_text?',
    ),
    "a flag by an index": (
        rule('\tinput.event.failed[_] == "stack_usr"', kind="smep_smap.register_check"),
        'p0.rego:5:2: rule R1: "stack_usr" is not a value of input.event.failed[_]; did you mean stack_user?',
    ),
    "all flags": (
        rule('\tinput.event.failed == ["stack_usr"]', kind="smep_smap.register_check"),
        'p0.rego:5:2: rule R1: "stack_usr" is not a value of input.event.failed[_]; did you mean stack_user?',
    ),
    "a number and text": (
        rule('\tinput.event.new_int == "0"'),
        "p0.rego:5:2: rule R1: compares input.event.new_int (a number) with text by ==, which is never true; "
        "write 0 without quotes",
    ),
    "text and a number": (
        rule("\tinput.event.name == 0"),
        "p0.rego:5:2: rule R1: compares input.event.name (text) with a number by ==, which is never true; write both",
    ),
    "a number and text by order": (
        rule('\tinput.event.new_int < "5"'),
        "p0.rego:5:2: rule R1: compares input.event.new_int (a number) with text by <, which depends on their types",
    ),
    "a number among texts": (
        rule('\tinput.event.new_int in {"0", "1"}'),
        "p0.rego:5:2: rule R1: compares input.event.new_int (a number) with text by in, which is never true",
    ),
    "a number among texts of data": (
        rule("\tinput.event.new_int in data.programs"),
        "p0.rego:5:2: rule R1: compares input.event.new_int (a number) with text by in, which is never true",
    ),
    "a boolean and text": (
        rule('\tinput.event.new_parsed == "true"'),
        "p0.rego:5:2: rule R1: compares input.event.new_parsed (a boolean) with text by ==, which is never true",
    ),
    "null": (
        rule("\tinput.event.new_int != null"),
        "p0.rego:5:2: rule R1: compares input.event.new_int (a number) with null by !=, which is always true",
    ),
    "arrays of numbers and of texts": (
        rule("\tinput.health.degraded == [1]"),
        "p0.rego:5:2: rule R1: compares input.health.degraded (an array) of texts with an array of numbers by ==",
    ),
    "flags and a set": (
        rule('\tinput.event.failed == {"stack_user"}', kind="smep_smap.register_check"),
        "p0.rego:5:2: rule R1: compares input.event.failed (an array) with a set by ==, which is never true; "
        "write the set as an array, or ask by `in`",
    ),
    "an address and a number": (
        rule("\tinput.event.ip == 0", kind="smep_smap.register_check"),
        "p0.rego:5:2: rule R1: compares input.event.ip (text) with a number by ==, which is never true; "
        "write both as numbers or both as text; addresses are text",
    ),
    "in a text": (
        rule('\t"kernel" in input.event.name'),
        "p0.rego:5:14: rule R1: input.event.name (text) is no collection, so nothing is in it; compare by ==, or look",
    ),
    "the wrong argument": (
        rule('\tstartswith(input.event.new_int, "1")'),
        "p0.rego:5:2: rule R1: argument 1 of startswith is input.event.new_int (a number); it must be text",
    ),
    "arithmetic with text": (
        rule("\tinput.event.name + 1 == 2"),
        "p0.rego:5:2: rule R1: an operand of plus is input.event.name (text); it must be a number",
    ),
    "a field that there is not": (
        rule("\tinput.event.nmae == 5"),
        "p0.rego:5:2: rule R1: input.event has no nmae; did you mean name?",
    ),
    "a field of the process": (
        rule('\tinput.process.exee == "/x"'),
        "p0.rego:5:2: rule R1: input.process has no exee; did you mean exe?",
    ),
    "a field of the parent": (
        rule('\tinput.process.parent.com == "x"'),
        "p0.rego:5:2: rule R1: input.process.parent has no com; did you mean comm?",
    ),
    "a field of the host": (
        rule('\tinput.host.nmae == "x"'),
        "p0.rego:5:2: rule R1: input.host has no nmae; did you mean name?",
    ),
    "a field of the health": (
        rule("\tinput.health.losd > 0"),
        "p0.rego:5:2: rule R1: input.health has no losd; did you mean lost?",
    ),
    "a part of the input": (
        rule('\tinput.hots.name == "x"'),
        "p0.rego:5:2: rule R1: input has no hots; did you mean host?",
    ),
    "a field of an ancestor": (
        rule('\tsome a in input.process.ancestors\n\ta.exee == "/x"'),
        "p0.rego:6:2: rule R1: input.process.ancestors[_] has no exee; did you mean exe?",
    ),
    "a field of an ancestor by index": (
        rule('\tinput.process.ancestors[_].exee == "/x"'),
        "p0.rego:5:2: rule R1: input.process.ancestors[_] has no exee; did you mean exe?",
    ),
    "a field of ancestors in a comprehension": (
        rule('\tcount([a | some a in input.process.ancestors; a.exee == "/x"]) > 0'),
        "p0.rego:5:48: rule R1: input.process.ancestors[_] has no exee; did you mean exe?",
    ),
    "a field of ancestors by `every`": (
        rule('\tevery a in input.process.ancestors { a.exee != "/x" }'),
        "p0.rego:5:39: rule R1: input.process.ancestors[_] has no exee; did you mean exe?",
    ),
    "a field of the target": (
        rule('\tinput.event.target.progam == "apt"', kind=PTRACE),
        "p0.rego:5:2: rule R1: input.event.target has no progam; did you mean program?",
    ),
    "below a number": (
        rule("\tinput.event.new_int.value == 5"),
        "p0.rego:5:2: rule R1: input.event.new_int (a number) has nothing below it; drop what follows it",
    ),
    "a document": (
        rule("\tdata.protected_sysctl[input.event.name]"),
        "p0.rego:5:2: rule R1: data has no protected_sysctl; did you mean protected_sysctls?",
    ),
    "a document in `in`": (
        rule("\tinput.event.name in data.program"),
        "p0.rego:5:22: rule R1: data has no program; did you mean programs?",
    ),
    "a key of a document": (
        rule("\tdata.deep.won.two == input.event.new_int"),
        "p0.rego:5:2: rule R1: data.deep has no won; did you mean one?",
    ),
    "an import of a document": (
        rule("\tinput.event.name in known").replace("krie.site\n", "krie.site\nimport data.program as known\n"),
        "p0.rego:6:22: rule R1: data has no program; did you mean programs?",
    ),
    "a rule of a package": (
        rule("\tdata.krie.site.halper", "helper if input.process.uid == 5\n"),
        "p0.rego:5:2: rule R1: data.krie.site.halper is no rule and no package; did you mean data.krie.site.helper?",
    ),
    "a package": (
        rule("\tdata.krie.sight.helper", "helper if input.process.uid == 5\n"),
        "p0.rego:5:2: rule R1: data.krie.sight.helper is no rule and no package; did you mean data.krie.site.helper?",
    ),
    "a document that no rule can meet": (
        rule("\tsome _, range in data.protected_sysctls\n\tinput.event.new_int < range.exactly"),
        "p0.rego:3: rule R1: it never fires: with the data as they are, it is false for every event",
    ),
    "another package's rules": (
        rule("\ttrue", "answers := {r.id | some r in data.krie.other.rules}\n"),
        "p0.rego:7:30: rule answers of krie.site: data.krie.other.rules is no rule and no package",
    ),
    "a program that nobody defines": (
        rule('\tinput.process.program == "sysctll"'),
        'p0.rego:5:2: rule R1: "sysctll" is not a program that [executables] of krie.toml names; did you mean sysctl?',
    ),
    "programs of which one is not defined": (
        rule('\tinput.process.program in {"apt", "dpkg"}'),
        'p0.rego:5:2: rule R1: "dpkg" is not a program that [executables] of krie.toml names; give it this '
        "name there, or check the name; there are apt, sysctl",
    ),
    "the parent's program": (
        rule('\tinput.process.parent.program != "sysctll"'),
        'p0.rego:5:2: rule R1: "sysctll" is not a program that [executables]',
    ),
    "the target's program": (
        rule('\tinput.event.target.program == "sysctll"', kind=PTRACE),
        'p0.rego:5:2: rule R1: "sysctll" is not a program that [executables]',
    ),
    "a kind": (
        rule("\ttrue", kind="runtime_integrity.sysctl"),
        'p0.rego:4:2: rule R1: "runtime_integrity.sysctl" is not a kind of event of any loaded plugin; did you mean '
        "runtime_integrity.sysctl_write?",
    ),
    "one of several kinds": (
        'package krie.site\n\nrules contains {"id": "R1", "action": "log"} if {\n'
        f'\tinput.event.kind in {{"{BPF}", "{BPF}x"}}\n}}\n',
        f'p0.rego:4:2: rule R1: "{BPF}x" is not a kind of event of any loaded plugin; did you mean {BPF}?',
    ),
    "two values at once": (
        rule('\tinput.event.change == "lower"\n\tinput.event.change == "higher"'),
        "p0.rego:3: rule R1: it never fires: it is false for all 3 combinations of the values that it compares;",
    ),
    "numbers that exclude each other": (
        rule("\tinput.event.new_int > 5\n\tinput.event.new_int < 3"),
        "p0.rego:3: rule R1: it never fires",
    ),
    "a value and not": (
        rule("\tinput.event.new_parsed\n\tnot helper", "helper if input.event.new_parsed\n"),
        "p0.rego:3: rule R1: it never fires: it is false for all 2 combinations",
    ),
    "texts that exclude each other": (
        rule('\tinput.event.name == "a"\n\tinput.event.name in {"b", "c"}'),
        "p0.rego:3: rule R1: it never fires",
    ),
    "the host's names": (
        rule('\tinput.host.name == "a"\n\tinput.host.name == "b"'),
        "p0.rego:3: rule R1: it never fires",
    ),
    "an event of the agent's": (
        rule('\tinput.event.state == "silent"\n\tinput.event.state == "missing"', kind="krie.probe"),
        "p0.rego:3: rule R1: it never fires",
    ),
    "two kinds at once": (
        rule(f'\tinput.event.kind == "{BPF}"'),
        "p0.rego:3: rule R1: it never fires",
    ),
    "false": (rule("\tfalse"), "p0.rego:3: rule R1: it never fires: it is false for every event"),
    "an action unlike the rule's": (
        rule("\ttrue", head="# METADATA\n# custom: {id: R1, action: kill}\n"),
        "p0.rego:4:28: rule R1: its METADATA say action kill, and the rule log; make both the same",
    ),
    "an id unlike the rule's": (
        rule("\ttrue", head="# METADATA\n# custom:\n#   id: R2\n"),
        "p0.rego:5:9: rule R1: its METADATA say id R2, and the rule R1; make both the same",
    ),
    "a severity that is none": (
        rule("\ttrue", head="# METADATA\n# custom:\n#   severity: hihg\n"),
        "p0.rego:5:15: rule R1: hihg is no severity; did you mean high?",
    ),
    "a severity of another scale": (
        rule("\ttrue", head="# METADATA\n# custom:\n#   severity: 3\n"),
        "p0.rego:5:15: rule R1: 3 is no severity; write one of low, medium, high, critical",
    ),
    "enforce": (
        rule("\ttrue", head="# METADATA\n# custom: {enforce: inlne}\n"),
        "p0.rego:4:21: rule R1: enforce is inlne, which means nothing; write inline, or drop it",
    ),
    "a key of METADATA": (
        rule("\ttrue", head="# METADATA\n# titel: t\n"),
        "p0.rego:3: rule R1: METADATA has no key titel; did you mean title?",
    ),
    "a key of custom": (
        rule("\ttrue", head="# METADATA\n# custom: {severty: high}\n"),
        "p0.rego:3: rule R1: custom has no key severty; did you mean severity?",
    ),
    "severity beside custom": (
        rule("\ttrue", head="# METADATA\n# severity: high\n"),
        "p0.rego:3: rule R1: METADATA has no key severity; put keys of your own below custom",
    ),
    "a list of techniques": (
        rule("\ttrue", head="# METADATA\n# custom: {technique: [T1]}\n"),
        "p0.rego:3: rule R1: custom.technique is no text; write one text",
    ),
    "rule instead of rules": (
        rule("\ttrue", 'rule contains {"id": "R2", "action": "kill"} if input.event.new_int == 5\n'),
        "p0.rego:7: rule rule of krie.site: rule contains what looks like rules, and nobody asks for it; name it rules",
    ),
    "rule instead of rules, alone": (
        'package krie.site\nrule contains {"id": "R2", "action": "kill"} if input.process.uid == 5\n',
        "p0.rego:2: rule rule of krie.site: rule contains what looks like rules",
    ),
    "rules of another name": (
        'package krie.site\ndetections contains {"id": "R2", "action": "kill", "scope": "process"} if true\n',
        "p0.rego:2: rule detections of krie.site: detections contains what looks like rules",
    ),
    "rules as a value": (
        rule("\ttrue", 'rule := {"id": "R2", "action": "log"} if input.process.uid == 5\n'),
        "p0.rego:7: rule rule of krie.site: rule is what looks like rules, and nobody asks for it; write `rules",
    ),
    "rules as an object": (
        rule("\ttrue", 'rule[name] := {"id": "R2", "action": "kill"} if name := input.event.name\n'),
        "p0.rego:7: rule rule of krie.site: rule is what looks like rules",
    ),
    "rules by a variable": (
        rule("\ttrue", 'rule contains r if {\n\tr := {"id": "R2", "action": "log"}\n\tinput.process.uid == 5\n}\n'),
        "p0.rego:7: rule rule of krie.site: rule contains what looks like rules, and nobody asks for it; name it rules",
    ),
    "a value looked up in a set": (
        rule('\t{"lower", "highr"}[input.event.change]'),
        'p0.rego:5:21: rule R1: "highr" is not a value of input.event.change; did you mean higher?',
    ),
    "a value looked up in a rule's set": (
        rule("\tchanges[input.event.change]", 'changes contains "lower"\nchanges contains "highr"\n'),
        'p0.rego:5:10: rule R1: "highr" is not a value of input.event.change; did you mean higher?',
    ),
    "a value looked up in an object": (
        rule('\t{"lower": 1, "highr": 2}[input.event.change] == 1'),
        'p0.rego:5:27: rule R1: "highr" is not a value of input.event.change; did you mean higher?',
    ),
    "a number looked up among texts": (
        rule('\t{"1": 1, "2": 2}[input.event.new_int] == 1'),
        "p0.rego:5:19: rule R1: compares input.event.new_int (a number) with text by in, which is never true",
    ),
    "in what no rule uses": (
        rule("\ttrue", 'unused if input.process.parent.com == "x"\n'),
        "p0.rego:7:11: rule unused of krie.site: input.process.parent has no com; did you mean comm?",
    ),
}
NEVER_TOO = {"a value that an enumeration does not have", "one of several kinds"}


@pytest.mark.parametrize("name", TOLD)
def test_what_cannot_be_meant_is_told_with_its_place_and_the_mend(name: str) -> None:
    text, message = TOLD[name]
    found = list(map(str, told(text)))
    others = [each for each in found if not each.startswith(message)]
    assert len(found) > len(others), found
    assert all("never fires" in each or "never true" in each for each in others), others


@pytest.mark.parametrize("name", IDIOMS)
def test_legal_idioms_are_not_warned_of(name: str) -> None:
    text = IDIOMS[name].replace('"a.b"', f'"{SYSCTL}"').replace("input.event.flags", "input.event.failed")
    if "failed" in text:
        text = text.replace(SYSCTL, "smep_smap.register_check")
    assert told(text) == []


FINE = {
    "data that an administrator emptied": rule("\tinput.event.name in data.nothing"),
    "an object of data that is empty": rule("\tsome name, range in data.no_names\n\tinput.event.new_int < range.least"),
    "keys that some of the data have": rule(
        "\tsome name, range in data.protected_sysctls\n\tinput.event.name == name\n\tinput.event.new_int < range.least"
    ),
    "a helper of two kinds": rule(
        "\tnamed",
        'named if input.event.name == "x"\n\nnamed if input.event.command == "prog_load"\n\n'
        f'rules contains {{"id": "R2", "action": "log"}} if {{\n\tinput.event.kind == "{BPF}"\n\tnamed\n}}\n',
    ),
    "a function of two kinds": rule(
        "\tsame(input.event.change)",
        'same(x) if x == "lower"\n\nsame(x) if x == "prog_load"\n\n'
        f'rules contains {{"id": "R2", "action": "log"}} if {{\n\tinput.event.kind == "{BPF}"\n'
        "\tsame(input.event.command)\n}\n",
    ),
    "a function of two types": rule(
        "\tsmall(input.event.new_int)\n\tsmall(input.event.name)", "small(x) if x < 5\n\nsmall(x) if is_string(x)\n"
    ),
    "a function of two types, between its calls": rule(
        "\tsmall(input.event.new_int)",
        "small(x) if x < 5\n\nsmall(x) if is_string(x)\n\n"
        'rules contains {"id": "R2", "action": "log"} if {\n\tsmall(input.event.name)\n}\n',
    ),
    "fields of any kind": (
        'package krie.site\nrules contains {"id": "R1", "action": "log"} if input.event.name == "x"\n'
    ),
    "texts for several fields": rule(
        "\tinput.event.change in watched",
        'watched := {"lower", "prog_load"}\n\n'
        f'rules contains {{"id": "R2", "action": "log"}} if {{\n\tinput.event.kind == "{BPF}"\n'
        "\tinput.event.command in watched\n}\n",
    ),
    "programs of several machines": rule("\tinput.process.program in tools", 'tools := {"apt", "docker"}\n'),
    "all programs by data": rule("\tinput.process.program in data.programs"),
    "no program": rule('\tinput.process.program == ""'),
    "a defined program": rule('\tinput.process.program != "apt"'),
    "a key that executables may have": rule("\tdata.executables[input.process.program]"),
    "an event's part that may be absent": rule('\tobject.get(input.event, "another", 5) == 5'),
    "any package's rules": rule("\ttrue", "answers := {r.id | some r in data.krie.site.rules}\n"),
    "input replaced": rule('\tshaped with input as {"event": {"mine": 5}}', "shaped if input.event.name\n"),
    "input replaced in place": rule("\tinput.event.mine == 5 with input.event.mine as 5"),
    "data replaced in place": rule("\tdata.mine == 5 with data.mine as 5"),
    "other": rule('\tinput.event.change == "other"'),
    "a flag without a name": rule('\t"unknown_bits" in input.event.failed', kind="smep_smap.register_check"),
    "an enumeration's text looked into": rule('\tstartswith(input.event.change, "low")'),
    "an enumeration by a name worked out": rule('\tinput.event.change == concat("", ["low", "er"])'),
    "keys of one's own": rule("\ttrue", head="# METADATA\n# title: t\n# custom: {owner: me, runbook: [a, b]}\n"),
    "METADATA of the package": "# METADATA\n# title: t\n# authors:\n# - me\npackage krie.site\n",
    "a helper of objects": rule(
        "\tsome r in ranges\n\tinput.event.new_int > r.least", 'ranges contains {"id": "a", "least": 5}\n'
    ),
    "an object that is no rule": rule("\ttrue", 'kinds := {"id": "a", "action": "open"}\n'),
    "a value looked up in data": rule("\tdata.named[input.event.name] == 1"),
    "a value looked up in what is worked out": rule(
        "\tseen[input.event.name]", "seen contains name if some name in data.programs\n"
    ),
    "an action alone": rule(
        "\tsome a in acts\n\tinput.event.name == a.action", 'acts contains {"action": "x"} if true\n'
    ),
    "many combinations": rule(
        "".join(f"\n\tinput.process.uid != {number}\n\tinput.process.gid != {number}" for number in range(60))
    ),
    "what nobody can try": rule("\tinput.process.exe == input.process.parent.exe"),
    "an error while it is tried": rule("\tto_number(input.event.change) == 5"),
    "else": rule('\tkind == "a"', 'kind := "a" if {\n\tinput.event.change == "lower"\n} else := "b"\n'),
    "a default": rule("\tlimit < input.event.new_int", "default limit := 5\n\nlimit := 6 if input.process.container\n"),
}


@pytest.mark.parametrize("name", FINE)
def test_what_may_be_meant_is_not_warned_of(name: str) -> None:
    assert told(FINE[name]) == []


def test_a_rule_that_takes_long_is_not_tried_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("krie.tier.never._LONGEST_S", 0.5)
    slow = "count([x | some x in numbers.range(1, 20000); x > 5]) < 0"
    started = time.monotonic()
    assert told(rule("\n".join((f"\t{slow}", *(f"\tinput.process.uid != {n}" for n in range(300)))))) == []
    assert time.monotonic() - started < 15


def test_shipped_policies_have_no_warnings_with_any_configuration(tmp_path: Path) -> None:
    for text in ((ROOT / "krie.toml").read_text(), "[plugins.runtime_integrity]\n[plugins.smep_smap]\n", ""):
        (tmp_path / "krie.toml").write_text(text)
        done = CliRunner().invoke(policy_command, ["check", "--strict", "--config", str(tmp_path / "krie.toml")])
        assert (done.exit_code, done.stderr) == (0, "")


def test_the_example_s_policies_have_no_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so those that `krie plugin new` writes, which are the same."""
    example = ROOT / "examples/krie-clock"
    monkeypatch.syspath_prepend(str(example))
    sensor = SimpleNamespace(events=(importlib.import_module("krie_clock.events").SetTime,))
    loaded = SimpleNamespace(sensors=(sensor,), facts=lambda kind: {}, degraded={})
    engine = EmbeddedEngine(read_sources([example / "krie_clock/policy"], {"executables": {}}))
    assert [rule.id for rule in engine.rules] == ["CLOCK001"]
    assert warnings(engine, Config(), cast("Plugins", loaded)) == []


def check(tmp_path: Path, rego: str, *arguments: str, toml: str = "") -> Any:
    (tmp_path / "rules").mkdir(exist_ok=True)
    (tmp_path / "rules/mine.rego").write_text(rego)
    config = tmp_path / "krie.toml"
    config.write_text(toml or f'policy.paths = ["{tmp_path}/rules"]\n[plugins.runtime_integrity]\n')
    return CliRunner().invoke(policy_command, ["check", "--config", str(config), *arguments])


def test_warnings_are_errors_with_strict(tmp_path: Path) -> None:
    text, place = rule('\tinput.event.change == "lowr"'), f"{tmp_path}/rules/mine.rego:5:2"
    said = f'{place}: rule R1: "lowr" is not a value of input.event.change; did you mean lower?\n'
    lax, strict = check(tmp_path, text), check(tmp_path, text, "--strict")
    assert (lax.exit_code, lax.stderr.splitlines(keepends=True)[-2]) == (0, f"warning: {said}")
    assert (strict.exit_code, strict.stderr.splitlines(keepends=True)[-2]) == (4, f"error: {said}")
    fine = check(tmp_path, rule('\tinput.event.change == "lower"'), "--strict")
    assert (fine.exit_code, fine.stderr) == (0, "")


KINDS = {
    "enumeration": ('\tinput.event.change == "lowr"', ""),
    "flag": ('\tinput.event.kind != "x"\n\t"send_signl" in input.event.helpers', ""),
    "unlike types": ('\tinput.event.new_int == "0"', ""),
    "never fires": ("\tinput.event.new_int > 5\n\tinput.event.new_int < 3", ""),
    "action of METADATA": ("\ttrue", "# METADATA\n# custom: {id: R1, action: kill}\n"),
    "severity": ("\ttrue", "# METADATA\n# custom:\n#   severity: hihg\n"),
    "rule for rules": ("\ttrue", 'rule contains {"id": "R2", "action": "kill"} if input.process.uid == 5\n'),
    "program": ('\tinput.process.program == "sysctll"', ""),
    "data": ("\tdata.no_such_document[input.event.name]", ""),
    "host": ('\tinput.host.nmae == "x"', ""),
    "ancestors": ('\tinput.process.ancestors[_].exee == "/x"', ""),
}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_mistake_is_a_warning_and_with_strict_an_error(tmp_path: Path, name: str) -> None:
    body, more = KINDS[name]
    head, rest = (more, "") if more.startswith("#") else ("", more)
    text = rule(body, rest, head=head, kind=BPF if name == "flag" else SYSCTL)
    lax, strict = check(tmp_path, text), check(tmp_path, text, "--strict")
    warned = [each.removeprefix("warning: ") for each in lax.stderr.splitlines() if each.startswith("warning: ")]
    assert (lax.exit_code, strict.exit_code) == (0, 4)
    assert any(f"{tmp_path}/rules/mine.rego:" in each for each in warned)
    assert [f"error: {each}" for each in warned] == [each for each in strict.stderr.splitlines() if "error: " in each]


@pytest.mark.parametrize("data", ['{"a": NaN}', '{"a": 1, "a": 2}', '{"a": {"b": 1, "b": 1}}'])
@pytest.mark.parametrize("strict", [(), ("--strict",)])
def test_data_that_are_read_otherwise_elsewhere_are_always_an_error(
    tmp_path: Path, data: str, strict: tuple[str, ...]
) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/mine.json").write_text(data)
    done = check(tmp_path, rule('\tinput.event.change == "lower"'), *strict)
    assert isinstance(done.exception, PolicyError)
    assert str(done.exception).startswith(f"{tmp_path}/rules/mine.json:1:")


def test_warnings_for_machines(tmp_path: Path) -> None:
    done = check(tmp_path, rule('\tinput.event.change == "lowr"'), "--json", "--strict")
    answer = json.loads(done.stdout)
    assert done.exit_code == 4
    file = f"{tmp_path}/rules/mine.rego"
    value, never = answer["warnings"]
    assert value == {
        "code": "meaning",
        "file": file,
        "line": 5,
        "column": 2,
        "rule": "R1",
        "what": '"lowr" is not a value of input.event.change',
        "mend": "did you mean lower?",
    }
    assert (never["code"], never["file"], never["line"], never["column"]) == ("never", file, 3, 0)
    assert answer["problems"][0] == f"{file}:5:2: rule R1: {value['what']}; {value['mend']}"
    assert json.loads(check(tmp_path, rule("\tinput.event.new_parsed"), "--json").stdout)["warnings"] == []


def test_a_plugin_that_is_left_out_leaves_its_rules_unchecked() -> None:
    loaded = Plugins.load(Config(plugins={"runtime_integrity": {}}), "krie.toml", Features(), print)
    engine = EmbeddedEngine(PolicySources((), {}, ""))
    assert warnings(engine, CONFIG, loaded) == []
    loaded.degrade("smep_smap", "ImportError: no such module")
    (found,) = map(str, warnings(engine, CONFIG, loaded))
    assert found == (
        "plugin smep_smap: is left out with its rules: ImportError: no such module; mend it, or drop its section"
    )


def test_the_schemas_are_those_of_what_rules_get() -> None:
    for schema, sample in ((HOST_SCHEMA, host()), (HEALTH_SCHEMA, health_facts(0, 0, 0, (), (), ()))):
        assert isinstance(schema, dict)
        properties = schema["properties"]
        assert isinstance(properties, dict)
        assert properties.keys() == sample.keys()


def test_every_event_has_a_schema_that_is_understood() -> None:
    assert {each.name for each in event_types(plugins())} >= {SYSCTL, BPF, PTRACE, "krie.probe"}


def test_places_with_colons() -> None:
    assert Mistake("/a:1/b.rego:3:4", "x", "R", "w", "m").to_json()["file"] == "/a:1/b.rego"
    found = Mistake("/a:b/c.rego:3", "x", "R", "w", "m").to_json()
    assert (found["file"], found["line"], found["column"]) == ("/a:b/c.rego", 3, 0)
    assert Mistake("plugin x", "x", "", "w", "m").to_json()["file"] == "plugin x"
