"""`krie policy explain` as a page for reviewers: all rules at a glance, then each of them with its source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from ..tier.explain import Explained
from .findings import near
from .page import (
    Html,
    choices,
    dotted,
    element,
    facts,
    joined,
    lines,
    page,
    row,
    severity_tag,
    table,
    tag,
    technique,
    text,
    tiles,
)
from .report import SEVERITIES, TIERS, weight

_CHOOSABLE: Mapping[str, tuple[str, ...]] = {
    "severity": (*SEVERITIES, "none"),
    "tier": TIERS,
    "action": ("kill", "override", "log"),
}
_COLUMNS = ("severity", "rule", "what", "ATT&CK", "action", "tier", "events")
_IN_KERNEL = "decided in the kernel, on the first occurrence: it depends on inline fields only, compared with constants"


def explain_page(explained: Iterable[Explained], revision: str, sources: Mapping[str, str], here: str = "") -> str:
    """`sources`: the text of each rule by its id; `here`: the kernel for which it holds, empty: for some kernel."""
    rules: dict[str, list[Explained]] = {}
    for each in sorted(explained, key=_weight):
        rules.setdefault(each.placement.rule.id, []).append(each)
    holds = f"on {here}" if here else "where the kernel can do what the rules ask for; --here asks this one"
    about = element("p", f"Policy revision {revision}. Tiers hold {holds}.", class_="about")
    body = [
        element("header", element("h1", "What this policy does"), about),
        tiles(_counted(rules)),
        element("h2", "Rules"),
        *(choices(name, values) for name, values in _CHOOSABLE.items()),
        table(_COLUMNS, (_overview(each) for each in rules.values())),
        element("h2", "Each rule"),
        *(_card(each, sources.get(id_, "")) for id_, each in rules.items()),
    ]
    return page("What this policy does", body, _CHOOSABLE)


def _weight(each: Explained) -> tuple[int, int, str, str]:
    """Sorts the worst rules first."""
    rule = each.placement.rule
    return weight(rule.metadata.severity), -rule.fired.action, rule.id, each.placement.kind


def _counted(rules: Mapping[str, list[Explained]]) -> Iterator[tuple[str, str, object]]:
    firsts = [each[0].placement.rule for each in rules.values()]
    severities = Counter(rule.metadata.severity for rule in firsts)
    yield "rules", "", len(rules)
    for each in SEVERITIES:
        yield each, each, severities[each]
    acting = sum(rule.action in ("kill", "override") for rule in firsts)
    yield "kill or refuse", "", acting
    yield "in the kernel", "good", sum("kernel" in _tiers(each) for each in rules.values())


def _tiers(explained: Iterable[Explained]) -> list[str]:
    return sorted({each.placement.tier for each in explained})


def _marks(explained: list[Explained]) -> dict[str, str]:
    """What the reader's choices look at."""
    rule = explained[0].placement.rule
    severity = rule.metadata.severity if rule.metadata.severity in SEVERITIES else "none"
    return {"data_severity": severity, "data_tier": " ".join(_tiers(explained)), "data_action": rule.action}


def _anchor(explained: list[Explained]) -> str:
    """Ids may hold any character; the places of rules are distinct."""
    return f"rule-{explained[0].placement.rule.id.encode().hex()}"


def _overview(explained: list[Explained]) -> Html:
    rule = explained[0].placement.rule
    return row(
        severity_tag(rule.metadata.severity),
        element("a", rule.id, href=f"#{_anchor(explained)}"),
        element("div", rule.metadata.title or "-", class_="wide"),
        technique(rule.metadata.technique),
        tag(rule.action, rule.action),
        joined((tag(each, each) for each in _tiers(explained)), " "),
        joined((dotted(each.placement.kind) for each in explained), " "),
        **_marks(explained),
    )


def _card(explained: list[Explained], source: str) -> Html:
    rule = explained[0].placement.rule
    about = rule.metadata
    fired = rule.fired
    lasting = f", for {fired.ttl_s} s" if fired.ttl_s else ""
    told: list[tuple[str, object]] = [
        ("ATT&CK", technique(about.technique)),
        ("action", joined((tag(rule.action, rule.action), f" scope {fired.scope}{lasting}"))),
        ("noticed by users", about.seen or "-"),
    ]
    parts: list[object] = [
        element(
            "div",
            severity_tag(about.severity),
            element("h3", element("code", rule.id), " ", about.title or "without a title"),
            class_="head",
        ),
        element("div", _relative(rule.place), class_="place"),
    ]
    if about.description:
        parts.append(element("p", about.description))
    parts += [
        facts(told),
        table(("events", "tier", "why", "a first attempt", "carried out by", "not by"), map(_kind, explained)),
    ]
    if source:
        summary = element("summary", "Rego")
        parts.append(element("details", summary, element("pre", element("code", lines(source)))))
    severity = about.severity if about.severity in SEVERITIES else ""
    return element("article", *parts, class_=f"card {severity}".strip(), id=_anchor(explained), **_marks(explained))


def _kind(each: Explained) -> Html:
    placement = each.placement
    why: list[object] = [placement.why or _IN_KERNEL]
    if not placement.why:
        fields = (f"{field} ({count} classes)" for field, count in sorted(each.classes.items()))
        size = f"fires in {each.rows} of {each.of_rows} rows of the kind's table"
        why.append(
            element("div", joined((element("code", field) for field in fields), ", "), "; ", size, class_="place")
        )
    return row(
        dotted(placement.kind),
        tag(placement.tier, placement.tier),
        joined(why),
        each.first_attempt,
        joined((element("code", name) for name in each.honours), " ") or text("-"),
        joined((element("code", name) for name in each.lacks), " ") or text("-"),
    )


def _relative(place: str) -> str:
    file, _, line = place.rpartition(":")
    return f"{near(file)}:{line}" if file.startswith("/") else place
