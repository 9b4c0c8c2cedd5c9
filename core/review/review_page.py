"""What a review found, as a page: of `krie policy diff` and `krie policy replay`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .page import Html, choices, element, facts, page, row, severity_tag, table, tag, technique, tiles
from .report import SEVERITIES, TIERS, ReviewFinding, ReviewReport, Table, weight

_NUMBER = re.compile(r"[\d,]+")
_NAMED = re.compile(r"([a-z ]{1,20}): (.*)", re.DOTALL)
_LONG, _START = 240, 100
_PROSE = frozenset({"title", "what"})
"""Columns of sentences."""
_CHOOSABLE = {"severity": (*SEVERITIES, "none")}


def as_html(report: ReviewReport) -> str:
    """One file that needs no other, and runs nothing."""
    numbers = [(name, value) for name, value in report.facts if _NUMBER.fullmatch(value)]
    texts = [(name, value) for name, value in report.facts if not _NUMBER.fullmatch(value)]
    body = [element("h1", report.title), facts(texts)]
    body += [tiles((name, "", value) for name, value in numbers)] if numbers else []
    body += [element("p", each, class_="note") for each in report.warnings]
    body += [element("h2", "What differs")]
    if report.findings:
        body += [choices(name, values) for name, values in _CHOOSABLE.items()]
    else:
        body.append(element("p", "Nothing that was found.", class_="about"))
    body += [_card(each) for each in sorted(report.findings, key=lambda each: weight(each.severity))]
    for each in report.tables:
        body += [element("h2", each.title), _table(each)]
    if report.passed:
        names = (element("span", element("code", each), " ") for each in report.passed)
        summary = element("summary", f"Rules of which nothing differs: {len(report.passed):,}")
        body.append(element("details", summary, element("p", *names)))
    return page(report.title, body, _CHOOSABLE)


def _card(finding: ReviewFinding) -> Html:
    severity = finding.severity if finding.severity in SEVERITIES else ""
    head = element("h3", element("code", finding.rule), " ", finding.title)
    parts = [element("div", severity_tag(finding.severity), head, class_="head")]
    parts += [element("div", finding.place, class_="place")] if finding.place else []
    parts.append(element("p", finding.what))
    parts.append(facts(_told(finding)))
    return element("article", *parts, class_=f"card {severity}".strip(), data_severity=severity or "none")


def _told(finding: ReviewFinding) -> Iterator[tuple[str, object]]:
    if finding.technique:
        yield "ATT&CK", technique(finding.technique)
    for each in finding.details:
        named = _NAMED.fullmatch(each)
        name, value = (named[1], named[2]) if named is not None else ("for example", each)
        code = element("code", value)
        yield (
            name,
            code if len(value) <= _LONG else element("details", element("summary", f"{value[:_START]} ..."), code),
        )


def _table(found: Table) -> Html:
    return table(found.columns, (row(*_cells(found.columns, each)) for each in found.rows))


def _cells(columns: Sequence[str], values: Sequence[str]) -> Iterator[Html]:
    for column, value in zip(columns, values, strict=True):
        if column == "severity":
            yield severity_tag("" if value == "-" else value)
        elif column == "ATT&CK":
            yield technique(value)
        elif column == "tier" and value in TIERS:
            yield tag(value, value)
        else:
            yield element("span" if column in _PROSE else "code", value)
