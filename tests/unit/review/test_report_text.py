"""Reports in all formats: names that others chose stay text in each of them."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from krie.printable import one_line
from krie.review.report import ReviewFinding, ReviewReport, Table
from krie.review.report_text import FORMATS, as_json, as_junit, as_markdown, as_sarif
from krie.review.review_page import as_html

EVIL = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "]]>&lt;<!--",
    "| x | y |\n\n# heading",
    "[a](javascript:alert(1)) ![b](http://x/y.png)",
    "@everyone #1 https://example.org www.example.org a@b.org",
    "`code` ```\n<b>**x**</b> \\| \\\\|",
    "\x1b[2J\x1b]0;x\x07\x00\x85\u2028\u202e\ud800\ufffe",
    "{{ x }} ${{ secrets.A }} ::error::x %0A",
]


def report(text: str) -> ReviewReport:
    return ReviewReport(
        text,
        ((text, text),),
        (Table(text, (text, "b"), ((text, "c"), ("d", text))),),
        (
            ReviewFinding(text, text, "high", text, f"{text}/p.rego:7", (text,)),
            ReviewFinding("B", "x", "low", "", "", ()),
        ),
        (text,),
        ("C", "D"),
        {"old": {"name": text}},
    )


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def tags(text: str) -> Tags:
    made = Tags()
    made.feed(text)
    return made


def texts(node: ET.Element) -> Iterator[str]:
    for each in node.iter():
        yield each.text or ""
        yield from each.attrib.values()


@pytest.mark.parametrize("evil", EVIL, ids=range(len(EVIL)))
def test_names_stay_text(evil: str) -> None:
    check(evil)


@given(st.text(max_size=40))
def test_any_name_stays_text(evil: str) -> None:
    check(evil)


def check(evil: str) -> None:
    found, plain, shown = report(evil), report("plain"), one_line(evil)
    assert json.loads(as_json(found))["findings"][0]["rule"] == evil
    junit = ET.fromstring(as_junit(found))
    wanted = Counter(each.tag for each in ET.fromstring(as_junit(plain)).iter())
    assert evil in ("B", "C", "D") or Counter(each.tag for each in junit.iter()) == wanted
    assert any(shown.strip() in each for each in texts(junit))
    sarif = json.loads(as_sarif(found))["runs"][0]["results"][0]
    assert not re.search(r"(?<!\\)(\\\\)*[\[\]]", sarif["message"]["text"])
    assert sarif["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].isascii()
    html = tags(as_html(found))
    same = "1" if re.fullmatch(r"[\d,]+", evil) else "plain"  # numbers are shown larger
    assert (html.found, html.attributes) == (tags(as_html(report(same))).found, tags(as_html(report(same))).attributes)
    assert shown in html.text
    for shape in FORMATS.values():
        made = shape(found)
        assert all(each.isprintable() or each == "\n" for each in made)


@pytest.mark.parametrize("evil", EVIL, ids=range(len(EVIL)))
def test_markdown_is_rows_of_plain_characters(evil: str) -> None:
    """Whatever reads it: in what others chose there is no character that means anything to Markdown or HTML."""
    made = as_markdown(report(evil))
    assert made.count("\n") == as_markdown(report("plain")).count("\n")
    own = re.compile(r"</?code>|&#\d+;|^#+ |^- |^> \*\*Note:\*\* |^\| | \|$| \| |---|: (?=<code>)", re.MULTILINE)
    assert re.fullmatch(r"[\w\s]*", own.sub("", made))


def test_a_rule_that_does_not_differ_passes() -> None:
    junit = ET.fromstring(as_junit(report("R")))
    assert (junit.attrib["tests"], junit.attrib["failures"]) == ("4", "2")
    assert {each.attrib["name"]: len(each) for each in junit.iter("testcase")} == {"R": 1, "B": 1, "C": 0, "D": 0}


def test_a_code_scanner_gets_places_and_levels() -> None:
    content = json.loads(as_sarif(report("R")))
    results = content["runs"][0]["results"]
    assert [each["level"] for each in results] == ["error", "note"]
    assert results[0]["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "R/p.rego"},
        "region": {"startLine": 7},
    }
    assert "locations" not in results[1]


def test_a_page_may_run_nothing() -> None:
    assert "default-src 'none'; style-src 'sha256-" in as_html(report("x"))
    assert not tags(as_html(report("x"))).found & {"script", "img", "link", "iframe", "a"}
