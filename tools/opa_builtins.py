"""Write core/policy/checks/builtins.json: the functions that OPA has, and which of them the embedded engine lacks.

Run it when another version of opa or of the embedded engine is taken into use: .venv/bin/python tools/opa_builtins.py
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import regorus

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "core/policy/checks/builtins.json"
_STUBS = ("http.send", "opa.runtime")
"""What the embedded engine has in name only: nobody is asked, so the answer is undefined, and of the agent's
environment and configuration it tells nothing.
"""


def type_of(node: dict[str, Any]) -> Any:
    """OPA's description of a type, shorter: a name, or a name with what its elements are."""
    kind = node["type"]
    if kind == "any":
        return [type_of(each) for each in node.get("of", ())] or "any"
    if kind == "set":
        return {"set": type_of(node.get("of", {"type": "any"}))}
    if kind == "array":
        closed = "static" in node and "dynamic" not in node
        if closed:
            return {"tuple": [type_of(each) for each in node["static"]]}
        return {"array": type_of(node["dynamic"]) if "dynamic" in node else "any"}
    if kind == "object":
        others = [type_of(node["dynamic"][each]) for each in ("key", "value")] if "dynamic" in node else None
        fields = {each["key"]: type_of(each["value"]) for each in node.get("static", ())}
        if not fields and others in (None, ["any", "any"]):
            return kind
        return {"object": fields} | ({"others": others} if others else {})
    return kind


def table(capabilities: dict[str, Any]) -> dict[str, Any]:
    """By name: arguments, answer, and what is to be said of it."""
    found = {}
    for each in capabilities["builtins"]:
        declared = each["decl"]
        row: dict[str, Any] = {
            "arguments": [type_of(argument) for argument in declared.get("args", ())],
            "result": type_of(declared.get("result", {"type": "any"})),
        }
        row |= {name: True for name in ("deprecated", "relation") if each.get(name)}
        row |= {"void": True} if "result" not in declared else {}
        row |= {"variadic": True} if "variadic" in declared else {}
        row |= {"lacking": True} if lacking(each["name"], len(row["arguments"])) else {}
        found[each["name"]] = row
    return found


def lacking(name: str, arity: int) -> bool:
    """Whether the embedded engine has no such function: asked with arguments too many, so that none is called."""
    if name in _STUBS:
        return True
    engine = regorus.Engine()
    try:
        engine.eval_query(f"{name}({', '.join(['1'] * (arity + 3))})")
    except RuntimeError as error:
        return "could not find function" in str(error)
    return False


def written(found: dict[str, Any]) -> str:
    """One line a function."""
    rows = (f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(found.items()))
    return "{\n" + ",\n".join(rows) + "\n}\n"


def capabilities(opa: Path) -> dict[str, Any]:
    """What this opa can do."""
    answer = subprocess.run([opa, "capabilities", "--current"], check=True, capture_output=True, timeout=60).stdout
    found: dict[str, Any] = json.loads(answer)
    return found


if __name__ == "__main__":
    TABLE.write_text(written(table(capabilities(ROOT / ".cache/tools/opa"))))
