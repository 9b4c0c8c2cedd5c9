"""Policies of a test through the check, and the data that they get."""

from pathlib import Path
from typing import Any

from krie.policy.embedded import EmbeddedEngine
from krie.policy.sources import PolicyFile, PolicySources

ROOT = Path(__file__).parents[2]
OPA = ROOT / ".cache/tools/opa"
DATA: dict[str, Any] = {
    "limits": [1, 2, 3],
    "named": {"a": 1, "b": 2},
    "pairs": [[1, 1], [1, 2]],
    "objects": [{"a": 1}],
    "flags": ["stack_user"],
    "deep": {"one": {"two": 5}, "none": None},
}


def compile_(*texts: str, data: dict[str, Any] | None = None) -> EmbeddedEngine:
    files = tuple(PolicyFile(f"p{number}.rego", text) for number, text in enumerate(texts))
    return EmbeddedEngine(PolicySources(files, DATA if data is None else data, "r"))
