"""Which rules the kernel may decide: the safe subset, and a counter-example for each construct outside it."""

import pytest
from krie.policy.embedded import EmbeddedEngine
from krie.policy.sources import PolicyFile, PolicySources
from krie.tier.domain import Numbers
from krie.tier.placement import Placement, find_tiers

from .sample import KIND, tiers


def placed(body: str, helpers: str = "") -> Placement:
    text = 'rules contains {"id": "R", "action": "override"} if {\n\tinput.event.kind == "sample.seen"\n' + "".join(
        f"\t{line}\n" for line in body.split("\n")
    )
    (found,) = tiers(f"{text}}}\n\n{helpers}").placements
    return found


KERNEL = {
    "a comparison with a literal": "input.process.uid == 5",
    "another one": "input.process.uid != 5",
    "turned round": "5 == input.process.uid",
    "order": "input.event.number < 5",
    "order, turned round": "5 >= input.event.number",
    "negative": "input.event.number == -5",
    "data": "input.process.uid in data.uids",
    "a set": "input.process.uid in {1, 2}",
    "an object's values": 'input.process.uid in {"a": 1, "b": 2}',
    "joined to data": "some pair in data.pairs\npair.uid == input.process.uid\npair.command == input.event.command",
    "data by a variable": "some key\ndata.limits[key].least > input.event.number",
    "text": 'input.event.name == "kernel/a"',
    "text in data": "input.event.name in data.names",
    "an executable": 'input.process.program == "apt"',
    "not": "not input.process.uid == 5",
    "a flag": '"a" in input.event.flags',
    "flags counted": "count(input.event.flags) > 1",
    "a flag set as a whole": 'input.event.flags == ["a"]',
    "an enumeration by a built-in": 'startswith(input.event.command, "lo")',
    "a flag set among arrays": 'input.event.flags in [["a"], ["b"]]',
    "something that flags are not": "5 in input.event.flags",
    "a boolean by itself": "input.event.known",
    "not a boolean": "not input.event.known",
    "the process": "input.process.container\nnot input.process.kernel_thread",
    "an alias of a field": "uid := input.process.uid\nuid == 5",
    "an array as data": "data.uids[0] == input.process.uid",
    "every over data": "every uid in data.uids { uid != input.process.uid }",
    "a comprehension over data": "input.process.uid == 5\ncount([x | some x in data.uids]) == 2",
    "nothing": "1 == 1",
    "an index": "data.uids[_] == input.process.uid",
    "unification": "input.process.uid = 5",
}
WITH_HELPERS = {
    "a helper rule": ("helper", "helper if input.process.uid == 5"),
    "several bodies": ("helper", "helper if input.process.uid == 5\n\nhelper if input.process.gid == 6"),
    "default": ("not helper", "default helper := false\n\nhelper if input.process.uid == 5"),
    "else": ("helper == 2", "helper := 1 if input.process.uid == 5\n\nelse := 2"),
    "a constant": ("input.process.uid == limit", "limit := 5"),
    "a function": ("test(input.process.uid)", "test(uid) if uid == 5"),
    "a function's constant": ("test(input.process.uid, 5)", "test(uid, limit) if uid == limit"),
    "a function of data": ("some pair in data.pairs\ntest(pair)", "test(p) if p.uid == input.process.uid"),
    "a set": ('"x" in found', 'found contains "x" if input.process.uid == 5'),
    "an object": ("found.x == 1", 'found["x"] := 1 if input.process.uid == 5'),
    "a field by a helper": ("uid == 5", "uid := input.process.uid"),
}
USER = {
    "two fields": ("input.process.uid == input.process.euid", "not a constant"),
    "two fields in order": ("input.process.uid < input.process.euid", "not a constant"),
    "two fields by a built-in": ("max([input.process.uid, input.process.euid]) == 5", "put into a collection"),
    "arithmetic": ("input.process.uid % 2 == 0", "reckoned with"),
    "a built-in": ('sprintf("%d", [input.process.uid]) == "5"', "put into a collection"),
    "a built-in of text": ('startswith(input.event.name, "kernel/")', "argument of startswith"),
    "a number as a collection": ('"a" in input.process.uid', "is searched"),
    "text in order": ('input.event.name < "kernel/b"', "no order"),
    "a key of data": ("data.limits[input.event.name].least == 3", "is a key"),
    "an index of data": ("data.uids[input.process.uid] == 5", "is a key"),
    "the input by a name from data": ("input[data.key].uid == 5", "worked out"),
    "the input by a variable": ("some key\ninput.process[key] == 5", "as a whole"),
    "an object of the input": ('input.process == {"uid": 5}', "as a whole"),
    "the input as an argument": ("count(input) > 3", "as a whole"),
    "an alias of the input": ("x := input\nx.process.uid == 5", "as a whole"),
    "object.get": ('object.get(input.process, "uid", 0) == 5', "as a whole"),
    "count of an object": ("count(input.event) == 5", "as a whole"),
    "walk": ("walk(input, found)\nfound[1] == 5", "as a whole"),
    "with": ('input.process.uid == 5 with input.process as {"uid": 5}', "`with`"),
    "a field that is not inline": ("input.event.free == 5", "not an inline field"),
    "a path of the process": ('input.process.exe == "/bin/sh"', "not an inline field"),
    "time": ("time.now_ns() > 5", "the same answer"),
    "rand": ('rand.intn("x", 5) == 1', "the same answer"),
    "collected": ("count({input.process.uid}) == 1", "put into a collection"),
    "a comprehension": ("count([x | x := input.process.uid]) == 1", "collected"),
    "a computed constant": ("input.process.uid == count(data.uids)", "not a constant"),
    "a number as an object's key": ("data.limits[1].least == input.event.number", "not a constant"),
}
USER_HELPERS = {
    "a function of two fields": ("f(input.process.uid, input.process.euid)", "f(x, y) if x == y", "not a constant"),
    "with in a helper": ("helper", 'helper if input.process.uid == 5 with input.process as {"uid": 5}', "`with`"),
    "a field that a helper carries": (
        "uid == 5",
        "uid := input.process.uid if input.event.known",
        "answer of a helper",
    ),
    "a set of fields": ("5 in uids", "uids contains input.process.uid", "answer of a helper"),
    "a field as a key": ("found[5]", "found[input.process.uid] := 1", "answer of a helper"),
}


@pytest.mark.parametrize("body", KERNEL.values(), ids=KERNEL)
def test_the_kernel_decides(body: str) -> None:
    assert placed(body).why == ""


@pytest.mark.parametrize(("body", "helpers"), WITH_HELPERS.values(), ids=WITH_HELPERS)
def test_the_kernel_decides_with_helpers(body: str, helpers: str) -> None:
    assert placed(body, helpers).why == ""


@pytest.mark.parametrize(("body", "why"), USER.values(), ids=USER)
def test_user_space_decides(body: str, why: str) -> None:
    found = placed(body)
    assert (found.tier, why in found.why) == ("user", True), found.why
    assert "sample.rego:3: " in found.why


@pytest.mark.parametrize(("body", "helpers", "why"), USER_HELPERS.values(), ids=USER_HELPERS)
def test_user_space_decides_with_helpers(body: str, helpers: str, why: str) -> None:
    found = placed(body, helpers)
    assert (found.tier, why in found.why) == ("user", True), found.why


def test_imports_under_other_names() -> None:
    source = (
        'import input.process as who\nimport data.uids as known\n\nrules contains {"id": "R", "action": "kill"} if '
    )
    (found,) = tiers(f"{source}who.uid in known").placements
    assert (found.why, [str(each) for each in found.uses]) == ("", ["input.process.uid"])


def test_functions_are_followed_by_the_name_of_their_import() -> None:
    files = (
        PolicyFile("helpers.rego", "package krie.helpers\n\nfifth(x) if x == 5\n"),
        PolicyFile(
            "sample.rego",
            "package krie.sample\n\nimport data.krie.helpers as h\n\n"
            'rules contains {"id": "R", "action": "kill"} if h.fifth(input.process.uid)\n',
        ),
    )
    engine = EmbeddedEngine(PolicySources(files, {}, "revision"))
    (found,) = find_tiers(engine, [KIND], Numbers(), lambda kind, rule: "").placements
    assert (found.why, [str(each) for each in found.uses]) == ("", ["input.process.uid"])


def test_actions_that_the_kernel_does_not_take() -> None:
    rule = 'rules contains {"id": "R", "action": %s} if input.process.uid == 5'
    (log,) = tiers(rule % '"log"').placements
    (host,) = tiers(rule % '"override", "scope": "host", "ttl_s": 5').placements
    assert "only logs" in log.why
    assert "scope host" in host.why
