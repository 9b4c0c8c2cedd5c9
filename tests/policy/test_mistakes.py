"""What compiles and cannot be meant is told, with its place and the fix; what may be meant is not."""

import importlib
import time
from types import SimpleNamespace
from typing import cast

import pytest
from krie.agent.health import health_facts
from krie.config import Config
from krie.kernel.features import Features
from krie.plugin.manager import Plugins
from krie.plugin.offline import event_types
from krie.policy.embedded import EmbeddedEngine
from krie.policy.mistake import Mistake
from krie.policy.mistakes import HEALTH_SCHEMA, HOST_SCHEMA
from krie.policy.sources import PolicySources, read_sources
from krie.processes.enrich import host
from krie.review.warnings import warnings

from .idioms import IDIOMS
from .mistaken_collections import COLLECTIONS, IN_COLLECTIONS
from .mistaken_names import NAMES
from .mistaken_sizes import IN_SIZE, SIZES
from .mistaken_values import VALUES
from .warned import BPF, CONFIG, DOCUMENTS, PTRACE, ROOT, SYSCTL, plugins, rule, told

TOLD = VALUES | NAMES | COLLECTIONS | SIZES
NEVER_TOO = {"a value that an enumeration does not have", "one of several kinds"}


@pytest.mark.parametrize("name", TOLD)
def test_what_cannot_be_meant_is_told_with_its_place_and_the_fix(name: str) -> None:
    text, message = TOLD[name]
    found = list(map(str, told(text)))
    others = [each for each in found if not each.startswith(message)]
    assert len(found) > len(others), found
    assert all("never fires" in each or "never true" in each for each in others), others


UNABLE = {
    "a rule that `with` replaces",
    "what depends on a rule that `with` replaces",
    "a comprehension's variable of the same name",
}
"""Legal, but the embedded engine (regorus 0.13) fails at them, and cannot decide by such a rule."""


@pytest.mark.parametrize("name", IDIOMS)
def test_legal_idioms_are_not_warned_of(name: str) -> None:
    text = IDIOMS[name].replace('"a.b"', f'"{SYSCTL}"').replace("input.event.flags", "input.event.failed")
    if "failed" in text:
        text = text.replace(SYSCTL, "smep_smap.register_check")
    assert [each.code for each in told(text)] == (["fails"] if name in UNABLE else [])


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
    "programs and other names": rule(
        "\tinput.process.program in tools\n\tinput.process.parent.comm in tools", 'tools := {"apt", "docker"}\n'
    ),
    "programs, and another rule that reads them": rule(
        "\tinput.process.program in tools",
        'tools := {"apt", "docker"}\n\nnames := [name | some name in tools; name != "apt"]\n',
    ),
    "programs of a set that others use": rule(
        "\tinput.process.program in tools\n\tinput.process.comm in named",
        'named := {"apt", "docker"}\n\ntools := named | {"sysctl"}\n',
    ),
    "programs by keys for two fields": rule(
        "\tinput.process.program in tools[input.event.name]\n\tinput.process.program in tools[input.event.change]",
        'tools := {"lower": ["apt"], "kernel/x": ["sysctl"]}\n',
    ),
    "all programs by data": rule("\tinput.process.program in data.programs"),
    "no program": rule('\tinput.process.program == ""'),
    "a defined program": rule('\tinput.process.program != "apt"'),
    "a key that executables may have": rule("\tdata.executables[input.process.program]"),
    "an event's part that may be absent": rule('\tobject.get(input.event, "another", 5) == 5'),
    "any package's rules": rule("\ttrue", "answers := {r.id | some r in data.krie.site.rules}\n"),
    "input replaced": rule('\tshaped with input as {"event": {"mine": 5}}', "shaped if input.event.name\n"),
    "input replaced in place": rule("\tinput.event.mine == 5 with input.event.mine as 5"),
    "data replaced in place": rule("\tdata.mine == 5 with data.mine as 5"),
    "what holds the replaced": rule('\tinput.event == {"mine": 5} with input.event.mine as 5'),
    "where `walk` shall lead to": rule('\twalk(input.host, [["name"], value])\n\tvalue == "x"'),
    "where `walk` leads to": rule('\twalk(input.host, [path, value])\n\tpath == ["name"]\n\tvalue == "x"'),
    "where `walk` of data leads to": rule('\twalk(data.deep, [path, value])\n\tpath == ["mine"]\n\tvalue == 5'),
    "a place where `walk` leads to": rule(
        '\twalk(input.process, [path, value])\n\tpath == ["ancestors", 0, "comm"]\n\tvalue == "x"'
    ),
    "what `walk` leads to among others": rule(
        "\twalk(input.host, [path, _])\n\tpath[0] in wanted\n\tinput.process.comm in wanted",
        'wanted := {"name", "bash"}\n',
    ),
    "parts by json.filter": rule(
        '\tjson.filter(input.process, ["parent/comm", ["ancestors", "0", "comm"], "mine"]) != {}'
    ),
    "below the replaced": rule('\tinput.event.mine.own == 5 with input.event.mine as {"own": 5}'),
    "a rule of the replaced": rule('\tnumber == "a" with input.process.uid as "a"', "number := input.process.uid\n"),
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
    "else": rule('\tkind == "a"', 'kind := "a" if {\n\tinput.event.change == "lower"\n} else := "b"\n'),
    "object.get of what may come": rule('\tobject.get(input.event, "owner", "x") != "y"'),
    "object.get of its default": rule('\tobject.get(input.event, "change", "absent") == "absent"'),
    "a key that later data may have": rule("\tdata.protected_sysctls[input.event.name].unit == 5"),
    "two of the same": rule("\tdata.programs[_] != data.programs[_]\n\tinput.event.name == data.programs[_]"),
    "a default": rule("\tlimit < input.event.new_int", "default limit := 5\n\nlimit := 6 if input.process.container\n"),
}


@pytest.mark.parametrize("text", (FINE | IN_COLLECTIONS | IN_SIZE).values(), ids=(FINE | IN_COLLECTIONS | IN_SIZE))
def test_what_may_be_meant_is_not_warned_of(text: str) -> None:
    assert told(text) == []


def test_what_a_function_passes_on_for_two_fields_is_of_both() -> None:
    """Also where the second one is found last, in another package."""
    first = rule("\tnot named(input.event.change)", "named(x) if known(x)\n").replace(
        "site\n", 'site\n\nknown(x) if x == "apt"\n', 1
    )
    second = rule("\tdata.krie.site.named(input.process.program)").replace("site\n", "zoo\n", 1).replace("R1", "R2")
    assert told(first, second) == []


def test_a_program_that_nobody_defines_is_told_wherever_its_set_is_asked() -> None:
    asked = "\tinput.process.program in tools\n\tnot input.process.parent.program in data.krie.site.tools"
    found = [str(each).split(": ")[0] for each in told(rule(asked, 'tools := {"apt", "dpkgg"}\n'))]
    assert found == ["p0.rego:5:2", "p0.rego:6:6"]


def test_a_misspelt_value_in_a_list_of_data_is_told() -> None:
    text = rule("\tinput.event.change in data.changes")
    for values, message in (
        (["lower", "highr"], '"highr" is not a value of input.event.change; did you mean higher?'),
        (["highr"], '"highr" is not a value of input.event.change; did you mean higher?'),
        (["lower", "quite another"], ""),
    ):
        found = [str(each) for each in told(text, data={**DOCUMENTS, "changes": values}) if each.code == "meaning"]
        assert found == ([f"p0.rego:5:2: rule R1: {message}"] if message else [])


def test_a_rule_that_takes_long_is_not_tried_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("krie.tier.never._LONGEST_S", 0.5)
    slow = "count([x | some x in numbers.range(1, 20000); x > 5]) < 0"
    started = time.process_time()
    assert told(rule("\n".join((f"\t{slow}", *(f"\tinput.process.uid != {n}" for n in range(300)))))) == []
    assert time.process_time() - started < 15


def test_the_example_s_policies_have_no_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so those that `krie plugin new` writes, which are the same."""
    example = ROOT / "examples/krie-clock"
    monkeypatch.syspath_prepend(str(example))
    sensor = SimpleNamespace(events=(importlib.import_module("krie_clock.events").SetTime,))
    loaded = SimpleNamespace(sensors=(sensor,), facts=lambda kind: {}, degraded={})
    engine = EmbeddedEngine(read_sources([example / "krie_clock/policy"], {"executables": {}}))
    assert [rule.id for rule in engine.rules] == ["CLOCK001"]
    assert warnings(engine, Config(), cast("Plugins", loaded)) == []


def test_a_plugin_that_is_left_out_leaves_its_rules_unchecked() -> None:
    loaded = Plugins.load(Config(plugins={"runtime_integrity": {}}), "krie.toml", Features(), print)
    engine = EmbeddedEngine(PolicySources((), {}, ""))
    assert warnings(engine, CONFIG, loaded) == []
    loaded.degrade("smep_smap", "ImportError: no such module")
    (found,) = map(str, warnings(engine, CONFIG, loaded))
    assert found == (
        "plugin smep_smap: is left out with its rules: ImportError: no such module; fix it, or drop its section"
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


def test_rules_that_use_one_another_take_no_time() -> None:
    """Each holds the one before twice: walked as a tree, the last one would have 4^30 leaves."""
    names = range(1, 31)
    arrays = "".join(f"r{each} := [r{each - 1}, r{each - 1}]\n" for each in names)
    objects = "".join(f'o{each} := {{"a": o{each - 1}, "b": o{each - 1}}}\n' for each in names)
    more = f'r0 := ["a", "b"]\n{arrays}o0 := {{"a": "b"}}\n{objects}'
    assert told(rule("\tr30[0] == r29\n\to30.a == o29", more)) == []


def test_comprehensions_in_each_other_are_walked_once() -> None:
    nested = "[y0 | y0 = input.event.name]"
    for each in range(1, 25):
        nested = f"[y{each} | y{each} = {nested}]"
    assert told(rule(f"\tcount({nested}) > 0")) == []
