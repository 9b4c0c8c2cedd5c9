"""Pages for reviewers: one file that needs no other, runs nothing, and in which every text is nothing but text."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape

from ..printable import one_line
from ..version import version
from .page_style import STYLE
from .report import SEVERITIES

_TECHNIQUE = re.compile(r"T(\d{4})(?:\.(\d{3}))?")


class Html(str):
    """What is markup already. Any other text is escaped where it becomes part of a page."""

    __slots__ = ()


def text(value: object) -> Html:
    """A value as one line of text."""
    return value if isinstance(value, Html) else Html(_escaped(value))


def _escaped(value: object) -> str:
    """Nor is it a command to a CI system in whose log the page is printed: see `krie.printable.no_commands`."""
    return escape(one_line(value)).replace("::", "&#58;:").replace("##", "#&#35;")


def lines(value: str) -> Html:
    """A text whose own line breaks and tabs are meant."""
    return Html("\n".join("\t".join(map(text, line.split("\t"))) for line in value.split("\n")))


def element(name: str, *content: object, **attributes: str) -> Html:
    """An element. `class_` and `data_x` stand for `class` and `data-x`; attributes that are empty are left out."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(value)}"' for key, value in attributes.items() if value
    )
    return Html(f"<{name}{shown}>{''.join(map(text, content))}</{name}>")


def joined(parts: Iterable[object], between: str = "") -> Html:
    """Several after each other."""
    return Html(text(between).join(map(text, parts)))


def dotted(name: str) -> Html:
    """A name of several parts, which may go on in the next line behind a dot."""
    return element("code", joined(name.split("."), Html(".<wbr>")))


def tag(kind: str, shown: object) -> Html:
    """A label, coloured if its kind has a colour."""
    return element("span", shown, class_=f"tag {kind}")


def severity_tag(severity: str) -> Html:
    """A label for a rule's severity, whatever is written there."""
    return tag(severity if severity in SEVERITIES else "", severity or "no severity")


def technique(name: str) -> Html:
    """An id of ATT&CK's, as a link to what it means if it looks like one."""
    found = _TECHNIQUE.fullmatch(name)
    if found is None:
        return text(name or "-")
    below = f"{found[2]}/" if found[2] else ""
    return element("a", name, href=f"https://attack.mitre.org/techniques/T{found[1]}/{below}", rel="noreferrer")


def table(columns: Sequence[str], rows: Iterable[Html]) -> Html:
    """A table with these column heads; `rows` come from `row`."""
    head = joined(element("th", each, scope="col") for each in columns)
    body = element("tbody", *(Html(f"\n{each}") for each in rows))
    return element("div", element("table", element("thead", element("tr", head)), body), class_="scroll")


def row(*cells: object, **attributes: str) -> Html:
    """One row of a table."""
    return element("tr", *(element("td", each) for each in cells), **attributes)


def facts(pairs: Iterable[tuple[str, object]]) -> Html:
    """Names with what there is to say of them."""
    return element("dl", *(each for name, value in pairs for each in (element("dt", name), element("dd", value))))


def tiles(counted: Iterable[tuple[str, str, object]]) -> Html:
    """Numbers: what each counts, its kind, and how many."""
    found = (
        element("div", element("b", many), element("span", what), class_=f"tile {kind}") for what, kind, many in counted
    )
    return element("div", *found, class_="tiles")


def choices(name: str, values: Sequence[str]) -> Html:
    """Buttons by which a reader leaves everything else out: what has the attribute `data-NAME`."""
    options = [_choice(name, "all", chosen=True), *(_choice(name, each) for each in values)]
    return element("fieldset", element("legend", name), *options)


def _choice(name: str, value: str, *, chosen: bool = False) -> Html:
    checked = " checked" if chosen else ""
    made = Html(f'<input type="radio" name="{escape(name)}" id="{_id(name, value)}"{checked}>')
    return element("label", made, value)


def _id(name: str, value: str) -> str:
    return f"{name}-{value}"


def _choosing(choosable: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for name, values in choosable.items():
        for each in values:
            chosen = f"body:has(#{_id(name, each)}:checked)"
            yield f'{chosen} [data-{name}]:not([data-{name}~="{each}"]) {{ display: none; }}\n'


def page(title: str, body: Iterable[Html], choosable: Mapping[str, Sequence[str]] | None = None) -> str:
    """`choosable`: names and values of `choices` that are on it, which are KRIe's own words."""
    style = STYLE + "".join(_choosing(choosable or {}))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    allowed = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    content = "\n".join(body)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{allowed}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{text(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{content}\n"
        f"<footer>Made by KRIe {text(version())}. This page loads nothing and runs nothing.</footer>\n</body>\n</html>"
    )
