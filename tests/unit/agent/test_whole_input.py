"""Rules that read more of their input than single fields: nothing that the agent works out of rules fails on them."""

import pytest
from krie.agent.blindness import blind_rules
from krie.agent.budget import importance
from krie.agent.policy_files import event_fields
from krie.config import Config
from krie.decision import Action
from krie.events.wire import Json
from krie.kernel.features import Features
from krie.plugin.manager import Plugins
from krie.plugin.offline import event_types
from krie.policy.embedded import EmbeddedEngine
from krie.policy.policy import Policy
from krie.policy.sources import PolicyFile, PolicySources
from krie.policy.unknown_names import unknown_names
from krie.review.warnings import warnings
from krie.tier.compiled import attempt
from krie.tier.subject import subject_of

CONFIG = Config.model_validate({"plugins": {"runtime_integrity": {}, "smep_smap": {}}})
KIND = "runtime_integrity.sysctl_write"
BODIES = {
    "all of it": "count(input) > 0",
    "all of it by `walk`": "walk(input, [_, value])\n\tvalue == 5",
    "what a variable names": 'some part in ["event"]\n\tinput[part].kind',
    "what a wildcard names": "input[_].uid == 0",
    "the whole event": "count(input.event) > 0",
    "a field that a variable names": 'some name in ["kind"]\n\tinput.event[name]',
    "in a function": "f(input)",
    "in a comparison": "input != {}",
    "printed": 'print("seen", input)',
    "replaced": "f(1) with input as input.event",
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("kinds", [f'input.event.kind == "{KIND}"', "true"], ids=["of a kind", "of all kinds"])
def test_rules_that_read_more_than_fields(name: str, kinds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("krie.tier.compiled.note", str)
    body = f"\t{kinds}\n\t{BODIES[name]}\n"
    head = '# METADATA\n# custom: {severity: high}\nrules contains {"id": "R1", "action": "kill"} if {\n'
    text = f"package krie.site\n\n{head}{body}}}\n\nf(x) if x != {{}}\n"
    engine = EmbeddedEngine(PolicySources((PolicyFile("p.rego", text),), {}, "r"))
    plugins = Plugins.load(CONFIG, "krie.toml", Features(), print)
    types = event_types(plugins)
    attempt(engine, types)
    assert not any(each.code == "never" for each in warnings(engine, CONFIG, plugins))
    subject_of(CONFIG, plugins, engine).tables()
    assert unknown_names(engine.rules, event_fields(types, plugins.facts)) == ()
    assert list(blind_rules(engine.rules, (), types)) == []
    assert [each.name for each in types if importance(engine.rules, each)] == (
        [KIND] if kinds != "true" else [each.name for each in types]
    )
    policy = Policy(engine, on_error=Action.LOG, memo=8)
    document: dict[str, Json] = {"event": {"kind": KIND, "value": 5}, "process": {"uid": 0}}
    for _ in range(2):
        assert [each.id for each in policy.decide(KIND, document).rules] == ["R1"]
