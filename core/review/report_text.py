"""Reports as texts that other programs show: JSON, JUnit, SARIF, Markdown, HTML.

Names in reports are others' to choose. In each format they stay text: nothing of them is markup, a link, a mention of
somebody or a control character.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import quote
from xml.sax.saxutils import escape

from ..printable import json_line, one_line
from ..version import version
from .report import SIDES, ReviewFinding, ReviewReport
from .review_page import as_html

_PUNCTUATION = re.compile(r"[^\w ]", re.ASCII)


def as_json(report: ReviewReport) -> str:
    """What `data` says, with the report's texts."""
    findings = [
        {"rule": each.rule, "what": each.what, "severity": each.severity, "title": each.title, "place": each.place}
        for each in report.findings
    ]
    content = {"title": report.title, "findings": findings, "warnings": list(report.warnings), **report.data}
    return json_line(json.dumps(content, indent=2))


def as_junit(report: ReviewReport) -> str:
    """A test case for each rule: it fails where something of it differs; warnings are the suite's output."""
    by_rule: dict[str, list[ReviewFinding]] = {rule: [] for rule in report.passed}
    for each in report.findings:
        by_rule.setdefault(each.rule, []).append(each)
    failures = sum(map(bool, by_rule.values()))
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuites name="krie" tests="{len(by_rule)}" failures="{failures}">',
        f'  <testsuite name="{_xml(report.title)}" tests="{len(by_rule)}" failures="{failures}" errors="0">',
    ]
    for rule, findings in sorted(by_rule.items()):
        case = f'    <testcase classname="krie.policy" name="{_xml(rule)}"'
        if not findings:
            lines.append(f"{case}/>")
            continue
        text = "\n".join(_xml(line) for each in findings for line in (each.what, *each.details))
        message = _xml("; ".join(each.what for each in findings))
        lines += [f"{case}>", f'      <failure message="{message}">{text}</failure>', "    </testcase>"]
    told = "\n".join(_xml(each) for each in (*(f"{name}: {value}" for name, value in report.facts), *report.warnings))
    return "\n".join([*lines, f"    <system-out>{told}</system-out>", "  </testsuite>", "</testsuites>"])


def as_sarif(report: ReviewReport) -> str:
    """SARIF 2.1.0: a result for each finding, at the rule's place.

    Which policies were compared is in the run's properties: its place for commits is for those of one repository that
    has a URL, and there are two policies, of which any may be a folder or a bundle.
    """
    rules = {each.rule: each for each in report.findings}
    described = [
        {"id": one_line(name), "shortDescription": {"text": _sarif(each.title or name)}}
        for name, each in sorted(rules.items())
    ]
    run = {
        "tool": {"driver": {"name": "KRIe", "version": version(), "rules": described}},
        "invocations": [
            {
                "executionSuccessful": True,
                "toolExecutionNotifications": [
                    {"level": "warning", "message": {"text": _sarif(each)}} for each in report.warnings
                ],
            }
        ],
        "results": [_result(each) for each in report.findings],
        "properties": {side: report.data[side] for side in SIDES if side in report.data},
    }
    content = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return json_line(json.dumps(content, indent=2))


def _result(finding: ReviewFinding) -> dict[str, object]:
    text = "\n".join(map(_sarif, (f"{finding.rule}: {finding.what}", *finding.details)))
    result: dict[str, object] = {"ruleId": one_line(finding.rule), "level": finding.level, "message": {"text": text}}
    file, _, line = finding.place.rpartition(":")
    if file and line.isdecimal():
        place = {
            "artifactLocation": {"uri": quote(file.encode("utf-8", "backslashreplace"))},
            "region": {"startLine": max(1, int(line))},
        }
        result["locations"] = [{"physicalLocation": place}]
    return result


def as_markdown(report: ReviewReport) -> str:
    """For a comment on a pull request."""
    lines = [f"## {_plain(report.title)}", ""]
    lines += [f"- {_plain(name)}: {_code(value)}" for name, value in report.facts]
    for warning in report.warnings:
        lines += ["", f"> **Note:** {_code(warning)}"]
    for table in report.tables:
        lines += ["", f"### {_plain(table.title)}", "", _row(map(_plain, table.columns))]
        lines += [_row("---" for _ in table.columns), *(_row(map(_code, row)) for row in table.rows)]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


FORMATS: Mapping[str, Callable[[ReviewReport], str]] = {
    "json": as_json,
    "junit": as_junit,
    "sarif": as_sarif,
    "markdown": as_markdown,
    "html": as_html,
}
"""By the name that --format has."""


def _xml(text: str) -> str:
    """Nor a command to a CI system, as `krie.printable.no_commands` has it."""
    return escape(one_line(text), {'"': "&quot;", "::": "&#58;:", "##": "#&#35;"})


def _sarif(text: str) -> str:
    """Brackets make links of what they hold."""
    return re.sub(r"([\[\]\\])", r"\\\1", one_line(text))


def _plain(text: str) -> str:
    """As the text that it is: no character of it means anything to Markdown."""
    return _PUNCTUATION.sub(lambda found: f"&#{ord(found[0])};" if ord(found[0]) < 128 else found[0], one_line(text))


def _code(text: str) -> str:
    """The same where nobody is mentioned by it, and no issue."""
    return f"<code>{_plain(text)}</code>" if text else ""
