"""What an OPA server is asked: modules that KRIe adds to the rules of a bundle, in a package of their own.

`krie.decision.result` merges all rules for one `input`; it is for people and for other programs, and the reference of
the agent's own merge. The agent asks `krie.decision.batch`, which answers many events by package, unmerged:

    input.batch   [{"n": 0, "packages": ["data.krie.agent"], "input": {"event": ..., ...}}, ...]
    answer        [{"n": 0, "fired": {"data.krie.agent": [{"id": ..., "action": ...}, ...]}}, ...], in the same order
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from importlib import resources

PACKAGE = "krie.decision"
BATCH = "batch"
"""The rule of `PACKAGE` that the agent asks."""
RESULT = "result"
FOLDER = "krie-decision"
"""Where these modules lie in a bundle."""
_HEAD = re.compile(
    r"(?:\s|#[^\n]*(?:\n|$))*package\s+(?P<first>[A-Za-z_]\w*)"
    r"(?P<rest>(?:\s*\.\s*[A-Za-z_]\w*|\[\s*\"(?:[^\"\\\n]|\\.)*\"\s*\])*)"
)
_PART = re.compile(r"\.\s*(?P<name>\w+)|\[\s*(?P<text>\"(?:[^\"\\\n]|\\.)*\")\s*\]")
_KEYWORDS = frozenset("as contains default else every false if import in not null package some true with".split())
_BATCH = """# Many events in one query: written by KRIe for the packages of this bundle, asked by its engine "opa".
package krie.decision

# METADATA
# title: For each question the rules that fired, by package
# entrypoint: true
batch := [answer |
	some each in input.batch
	answer := {"n": each.n, "fired": {name: rules_of(name) | some name in each.packages}} with input as each.input
]

# So that there is such a function where there is no package.
rules_of("") := set()
"""


def package_of(text: str) -> tuple[str, ...] | None:
    """The package that a module says to be of, such as ("krie", "agent"); None where it does not say so plainly."""
    if (head := _HEAD.match(text)) is None:
        return None
    parts = (part["name"] or _text(part["text"]) for part in _PART.finditer(head["rest"]))
    return (head["first"], *parts)


def _text(literal: str) -> str:
    try:
        return str(json.loads(literal))
    except ValueError:
        return literal


def _step(part: str) -> str:
    return f".{part}" if part.isidentifier() and part.isascii() and part not in _KEYWORDS else f"[{json.dumps(part)}]"


def entry_points(texts: Iterable[str]) -> dict[str, str]:
    """The modules to add to these, by file name. They depend on nothing but which packages there are."""
    packages = sorted({package for text in texts if (package := package_of(text)) is not None})
    rules = (
        f"\nrules_of({json.dumps('.'.join(('data', *package)))}) := data{''.join(map(_step, package))}.rules\n"
        for package in packages
        if ".".join(package) != PACKAGE
    )
    return {"batch.rego": _BATCH + "".join(rules), "decision.rego": _merge()}


@cache
def _merge() -> str:
    return (resources.files("krie.policies") / "decision.rego").read_text()
