"""What OPA's checker says, in strict mode and with the types of `input`.

Each package of rules gets the schema of `input` for the events that its rules are about, by an annotation in a file of
its own: no line of the policy moves. Which of several kinds has a field KRIe's own check tells.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..events.wire import Json
from ..policy.engine import Package
from ..policy.sources import PolicySources
from ..policy.tool import Answer, ToolError, run
from .findings import OPA, Finding, Place, place_from
from .input_schemas import file_of, input_schema, kinds_of

TIMEOUT_S = 60.0
_URL = "https://www.openpolicyagent.org/docs/policy-language"
_OWN = "krie_input"
"""Folder of the packages' schemas, and the start of the names of the files that refer to them."""
_FIXES = {
    "parse_error": "correct the syntax; the reference is at the address behind this",
    "unsafe_var_error": "give the variable a value in an expression that is not negated",
    "recursion_error": "let no rule depend on itself",
    "conflict_error": "give both the same value, or rename one",
    "type_error": "compare and pass values of the same type, by names that exist",
    "compile_error": "remove what is not used, or spell it as it is defined",
}


def opa_findings(
    opa: str, sources: PolicySources, packages: Sequence[Package], events: Mapping[str, Json]
) -> list[Finding]:
    """`packages`: those with rules, none where they are not known; `events`: schemas by kind. Raises `ToolError`."""
    typed = dict(enumerate(packages))
    while True:
        with tempfile.TemporaryDirectory(prefix="krie-opa-") as name:
            answer = _asked(opa, sources, typed, events, Path(name))
        if answer.code == 0:
            return []
        errors = _errors(answer)
        if not errors:
            raise ToolError(answer.failure(opa))
        files = [str(each["location"].get("file", "")) for each in errors if isinstance(each.get("location"), dict)]
        own = {at for at in typed if f"{_OWN}_{at}.rego" in files}
        if not own:
            return list(_findings(opa, answer, errors, sources))
        for at in own:  # it declares schemas of its own, and OPA takes one declaration alone
            del typed[at]


def _asked(
    opa: str, sources: PolicySources, packages: Mapping[int, Package], events: Mapping[str, Json], folder: Path
) -> Answer:
    files = []
    for number, file in enumerate(sources.files):
        files.append(f"{number}.rego")
        (folder / files[-1]).write_text(file.text)
    for number, package in packages.items():
        files.append(f"{_OWN}_{number}.rego")
        text = f"# METADATA\n# scope: subpackages\n# schemas:\n#   - input: schema.{_OWN}.p{number}\n"
        (folder / files[-1]).write_text(f"{text}package {package.name.removeprefix('data.')}\n")
    write_schemas(folder / "schemas", events)
    own = folder / "schemas" / _OWN
    own.mkdir()
    for number, package in packages.items():
        schema = input_schema(events[kind] for kind in kinds_of(package, events))
        (own / f"p{number}.json").write_text(json.dumps(schema))
    limits = ["--strict", "--max-errors", "10000", "--format", "json"]
    return run([opa, "check", *limits, "--schema", "schemas", *files], folder, TIMEOUT_S)


def write_schemas(folder: Path, events: Mapping[str, Json]) -> None:
    """One file for each kind, as `opa check --schema FOLDER` takes them. Raises `OSError`."""
    for kind, event in events.items():
        file = folder / file_of(kind)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{json.dumps(input_schema([event]), indent=2)}\n")


def _errors(answer: Answer) -> list[dict[str, Any]]:
    try:
        return [dict(each) for each in json.loads(answer.errors)["errors"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def _findings(
    opa: str, answer: Answer, errors: Sequence[Mapping[str, Any]], sources: PolicySources
) -> Iterator[Finding]:
    try:
        for each in errors:
            if "location" not in each:  # "error limit reached"
                continue
            where = each["location"]
            file = sources.files[int(str(where["file"]).removesuffix(".rego"))].place
            place = place_from(file)
            code = str(each["code"]).removeprefix("rego_")
            details = each.get("details")
            message = " ".join(str(each["message"]).split()) + _unlike(details)
            fix = _close(details) or _FIXES.get(code, _FIXES["compile_error"])
            yield Finding(
                Place(place.file, max(0, int(where["row"])), max(0, int(where["col"]))),
                OPA,
                code.replace("_", "-"),
                message,
                fix,
                url=_URL,
            )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ToolError(answer.failure(opa)) from error


def _unlike(details: Any) -> str:
    """The types that do not match, where that is what is wrong."""
    try:
        return f": {details['a']['type']} and {details['b']['type']}"
    except (KeyError, TypeError):
        return ""


def _close(details: Any) -> str:
    """How to fix a name that does not exist, by those that do."""
    try:
        names, at = [str(each) for each in details["oneOf"]], int(details["pos"])
        close = get_close_matches(str(details["ref"][at]["value"]), names, 1)
    except (KeyError, TypeError, ValueError, IndexError):
        return ""
    return f"did you mean {close[0]}?" if close else f"write one of {', '.join(names[:12])}{' ...' * (len(names) > 12)}"
