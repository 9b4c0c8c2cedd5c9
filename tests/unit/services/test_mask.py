"""What a policy wants hidden of its decisions, and masks that make no sense."""

import json
from typing import Any

import pytest
from krie.errors import PolicyError
from krie.events.wire import Json
from krie.policy.embedded import EmbeddedEngine
from krie.policy.sources import PolicyFile, PolicySources
from krie.services.mask import Mask, masked, masks

from .bundle_site import RULE

ZEROS = ("00", "+0", "-0", "0" * 5000)
"""As Go reads them, so that OPA finds the first element."""
EVENT: dict[str, Any] = {"input": {"a": {"b": [1, 2, {"c": 3}]}, "x/y": 4}, "result": {"rules": [{"id": "R"}]}}


@pytest.mark.parametrize(
    ("rule", "after", "noted"),
    [
        ("/input/a/b/2/c", {"input": {"a": {"b": [1, 2, {}]}, "x/y": 4}}, "erased"),
        ("/input/a/b/0", {"input": {"a": {"b": [2, {"c": 3}]}, "x/y": 4}}, "erased"),
        ("/input", {}, "erased"),
        ({"op": "remove", "path": "/result/rules/0/id"}, {"result": {"rules": [{}]}}, "erased"),
        (
            {"op": "upsert", "path": "/input/a/b/1", "value": "*"},
            {"input": {"a": {"b": [1, "*", {"c": 3}]}, "x/y": 4}},
            "masked",
        ),
        ({"op": "upsert", "path": "/result", "value": None}, {"result": None}, "masked"),
        (
            {"op": "upsert", "path": "/result/new/deep", "value": 1},
            {"result": {"rules": [{"id": "R"}], "new": {"deep": 1}}},
            "masked",
        ),
        ("/input/nowhere/x", {"input": EVENT["input"]}, ""),
        ("/input/a/b/9", {"input": EVENT["input"]}, ""),
        ("/input/a/b/-1", {"input": EVENT["input"]}, ""),
        *((f"/input/a/b/{each}", {"input": {"a": {"b": [2, {"c": 3}]}, "x/y": 4}}, "erased") for each in ZEROS),
        ("/input/a/b/002/c", {"input": {"a": {"b": [1, 2, {}]}, "x/y": 4}}, "erased"),
        ({"op": "upsert", "path": "/input/a/b/9", "value": 1}, {"input": EVENT["input"]}, ""),
        ({"op": "upsert", "path": "/input/a/b/0/z", "value": 1}, {"input": EVENT["input"]}, ""),
    ],
)  # fmt: skip
def test_masks(rule: Json, after: dict[str, Any], noted: str) -> None:
    before = json.dumps(EVENT)
    found = masked(EVENT, [rule])
    assert json.dumps(EVENT) == before
    assert {key: found.get(key) for key in after} == after
    assert ("input" in found) == (rule != "/input")
    path = rule if isinstance(rule, str) else rule["path"]  # type: ignore[index,call-overload]
    assert found.get("erased", []) + found.get("masked", []) == ([path] if noted else [])


@pytest.mark.parametrize(
    "rules",
    [
        {},
        ["input"],
        ["/labels"],
        [""],
        [7],
        [{"op": "x", "path": "/input"}],
        [{"path": "/input"}],
        [{"op": "remove"}],
        ["/input/%"],
        ["/input/a%zz"],
    ],
)
def test_a_mask_that_makes_no_sense_is_an_error(rules: Json) -> None:
    with pytest.raises(PolicyError, match=r"data\.system\.log\.mask"):
        masked(EVENT, rules)


def test_masks_in_data_are_refused() -> None:
    """OPA masks by them, too: they would be in force there, and not here."""
    data: dict[str, Json] = {"system": {"log": {"mask": ["/input/process/exe"]}}}
    with pytest.raises(
        PolicyError, match=r"site/m\.json: data\.system is what OPA reads for itself.* package system\.log"
    ):
        EmbeddedEngine(PolicySources((PolicyFile("a", RULE % "A"),), data, "r", {"system": "site/m.json"}))


def test_whether_a_policy_masks() -> None:
    assert masks([PolicyFile("a", "# x\npackage system.log\n")])
    assert not masks([PolicyFile("a", RULE % "A")])
    made = Mask([("a", "package system.log\n\nmask contains input.input.x")], {})
    assert made.applied({"input": {"x": "/input/x"}}) == {"input": {}, "erased": ["/input/x"]}
    assert made.applied({"input": {}}) == {"input": {}}
    with pytest.raises(PolicyError):
        Mask([("a", "package system.log\n\nmask contains")], {})
