"""A report for machines: JSON, SARIF 2.1.0, annotations of GitHub's, GitLab's code quality, Markdown for a comment.

All texts may be chosen by whoever wrote the policy. Each format escapes what would mean something to its reader.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from ..events.wire import Json
from ..printable import json_line, one_line
from ..version import version
from .findings import ERROR, KRIE, OPA, REGAL, WARNING, Finding, Looked, Place, Report

_NAMES = {KRIE: "KRIe", OPA: "OPA", REGAL: "Regal"}
_URLS = {
    OPA: "https://www.openpolicyagent.org/docs/cli#check",
    REGAL: "https://www.openpolicyagent.org/projects/regal",
}
_ABOUT = {
    "refused": "The policy cannot come into force: it does not compile, or breaks a convention",
    "metadata": "The METADATA of a rule are not what they should be, or not what the rule is",
    "meaning": "A rule compares or looks up what cannot be meant",
    "rules": "What looks like rules has a name that nobody asks for",
    "never": "A rule fires for no event",
    "fails": "A rule cannot be evaluated for some event",
    "slow": "A package takes longer than a decision may",
    "degraded": "A plugin and its rules are left out",
    "link": "A link leads out of its folder of policies",
    "not-run": "A tool that was required did not look",
}
"""KRIe's own codes."""
_SARIF = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_TABLE, _CELL = 20_000, 400
"""Characters of a comment's table, and of a text in it: GitHub takes comments of 65,536."""


def as_json(report: Report) -> str:
    """For scripts: documented, fields are only added."""
    content: Json = {
        "version": 1,
        "revision": report.revision,
        "errors": report.count(ERROR),
        "warnings": report.count(WARNING),
        "tools": [
            {
                "name": each.tool,
                "looked": not each.why,
                "path": each.path,
                "why": each.why,
                "errors": report.count(ERROR, each.tool),
                "warnings": report.count(WARNING, each.tool),
            }
            for each in report.looked
        ],
        "notes": list(report.notes),
        "findings": [
            {
                "file": each.place.file,
                "line": each.place.line,
                "column": each.place.column,
                "severity": each.severity,
                "tool": each.tool,
                "code": each.code,
                "rule": each.rule,
                "what": each.what,
                "fix": each.fix,
                "url": each.url,
                "fingerprint": each.fingerprint,
            }
            for each in report.findings
        ],
    }
    return _json(content)


def as_sarif(report: Report) -> str:
    """SARIF 2.1.0: one run a tool, also of one that did not look, which says so."""
    content: Json = {"$schema": _SARIF, "version": "2.1.0", "runs": [_run(report, each) for each in report.looked]}
    return _json(content)


def _json(content: Json) -> str:
    return f"{json_line(json.dumps(content, indent=2))}\n"


def _run(report: Report, looked: Looked) -> Json:
    findings = [each for each in report.findings if each.tool == looked.tool]
    rules = {each.name: each for each in findings}
    numbers = {name: number for number, name in enumerate(rules)}
    about: dict[str, Json] = {"version": version()} if looked.tool == KRIE else {"informationUri": _URLS[looked.tool]}
    driver: Json = {"name": _NAMES[looked.tool], **about, "rules": [_rule(each) for each in rules.values()]}
    told: list[Json] = [{"level": "error", "message": {"text": f"did not look: {looked.why}"}}] if looked.why else []
    return {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": not looked.why, "toolExecutionNotifications": told}],
        "originalUriBaseIds": {"SRCROOT": {"uri": f"{Path.cwd().as_uri()}/"}},
        "columnKind": "unicodeCodePoints",
        "results": [_result(each, numbers[each.name]) for each in findings],
    }


def _rule(finding: Finding) -> Json:
    about = _ABOUT.get(finding.code, finding.code) if finding.tool == KRIE else one_line(finding.what)
    rule: dict[str, Json] = {
        "id": finding.name,
        "shortDescription": {"text": finding.code},
        "fullDescription": {"text": about},
        "help": {"text": one_line(finding.fix)},
        "defaultConfiguration": {"level": finding.severity},
    }
    return {**rule, "helpUri": finding.url} if finding.url.startswith("https://") else rule


def _result(finding: Finding, number: int) -> Json:
    place, uri = finding.place, _uri(finding.place)
    region: dict[str, Json] = {"startLine": max(1, place.line)}
    if place.column:
        region["startColumn"] = place.column
    where: Json = {"artifactLocation": uri, "region": region}
    return {
        "ruleId": finding.name,
        "ruleIndex": number,
        "level": finding.severity,
        "message": {"text": f"{_no_link(finding.told)}\n\nHow to fix: {_no_link(finding.fix)}"},
        "locations": [{"physicalLocation": where}],
        "partialFingerprints": {"krie/v1": finding.fingerprint},
    }


def _no_link(text: str) -> str:
    """Brackets in a message of SARIF's make a link of what they hold."""
    return re.sub(r"([\[\]\\])", r"\\\1", one_line(text))


def _uri(place: Place) -> dict[str, Json]:
    if place.file.startswith("/"):
        return {"uri": f"file://{quote(place.file, errors='surrogateescape')}"}
    return {"uri": quote(place.file, errors="backslashreplace"), "uriBaseId": "SRCROOT"}


def as_github(report: Report) -> str:
    """Workflow commands, which GitHub shows beside the lines of a pull request; of each severity ten a step, so errors
    come first."""
    lines = []
    for severity in (ERROR, WARNING):
        for each in (each for each in report.findings if each.severity == severity):
            where = {"file": each.place.file, "line": str(max(1, each.place.line))}
            if each.place.column:
                where["col"] = str(each.place.column)
            lines.append(_command(severity, {**where, "title": each.name}, each.told, each.fix))
    for looked in report.looked:
        if looked.why:
            lines.append(_command("warning", {"title": f"{looked.tool} did not look"}, looked.why))
    lines.append(_command("notice", {"title": "krie policy lint"}, summary(report)))
    return "".join(f"{line}\n" for line in lines)


def _command(name: str, properties: Mapping[str, str], *lines: str) -> str:
    told = "%0A".join(_data(one_line(line)) for line in lines)
    shown = ",".join(
        f"{key}={_data(one_line(value)).replace(':', '%3A').replace(',', '%2C')}" for key, value in properties.items()
    )
    return f"::{name} {shown}::{told}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def as_gitlab(report: Report) -> str:
    """GitLab's code quality report."""
    severities = {ERROR: "major", WARNING: "minor"}
    content: Json = [
        {
            "description": f"{one_line(each.told)}; {one_line(each.fix)}",
            "check_name": each.name,
            "fingerprint": each.fingerprint,
            "severity": severities[each.severity],
            "location": {"path": each.place.file, "lines": {"begin": max(1, each.place.line)}},
        }
        for each in report.findings
    ]
    return _json(content)


def as_markdown(report: Report) -> str:
    """For a comment. Nothing of a text is markup, mentions anybody or links anywhere."""
    lines = [f"### Policy lint: {summary(report)}", ""]
    lines += [f"- **{_NAMES[each.tool]} did not look**: {literal(each.why)}" for each in report.looked if each.why]
    lines += [f"- {literal(each)}" for each in report.notes]
    if report.findings:
        lines += ["", "| severity | place | check | what | how to fix |", "|---|---|---|---|---|"]
    size = 0
    for shown, each in enumerate(report.findings):
        cells = (each.severity, *map(literal, (str(each.place), each.name, each.told, each.fix)))
        row = f"| {' | '.join(cells)} |"
        size += len(row)
        if size > _TABLE:
            lines += ["", f"... and {len(report.findings) - shown:,} more."]
            break
        lines.append(row)
    return "".join(f"{line}\n" for line in lines)


def literal(text: str) -> str:
    """One line of Markdown that shows the text as it is, cut where it is very long."""
    line = one_line(text)
    line = f"{line[:_CELL]}..." if len(line) > _CELL else line
    # In <code> nobody is mentioned; as numbers no character means anything to Markdown, nor ends a table's cell.
    shown = "".join(each if each.isalnum() or each == " " else f"&#{ord(each)};" for each in line)
    return f"<code>{shown}</code>" if line else ""


def summary(report: Report) -> str:
    """One line: how many, and who did not look."""
    found = {each: report.count(each) for each in (ERROR, WARNING)}
    counts = ", ".join(counted_as(count, each) for each, count in found.items() if count or each == ERROR)
    silent = [each.tool for each in report.looked if each.why]
    return f"{counts}; did not look: {', '.join(silent)}" if silent else counts


def counted_as(count: int, severity: str) -> str:
    """Such as 1 error, or 2 errors."""
    return f"{count:,} {severity}{'s' if count != 1 else ''}"


FORMATS: Mapping[str, Callable[[Report], str]] = {
    "json": as_json,
    "sarif": as_sarif,
    "github": as_github,
    "gitlab": as_gitlab,
    "markdown": as_markdown,
}
"""All but the one for people: see `krie.cli.render_lint`."""
