"""Pages for reviewers: complete, and nothing in them is more than text."""

import base64
import hashlib
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from krie.cli.policy import policy as policy_command
from krie.review.page import Html, element, joined, lines, page, technique, text
from krie.review.report import ReviewFinding, ReviewReport, Table
from krie.review.review_page import as_html

ROOT = Path(__file__).parents[2]
EVIL = "\"'><script>alert(1)</script><img src=x onerror=y>&amp;\x1b[2J\u202e</style></title><!--"
VOID = {"meta", "input", "wbr", "br"}
ELEMENTS = set(
    """html head meta title style body header h1 h2 h3 p div b span fieldset legend label input table thead tbody tr
    th td article code a wbr dl dt dd details summary pre footer""".split()
)
ATTRIBUTES = set("lang charset http-equiv content name class id href rel scope type checked".split())


class Reader(HTMLParser):
    """Reads a page as a browser does, and fails for whatever could load, run or send something."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.shown = ""
        self.found: dict[str, list[str]] = {}
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in ELEMENTS, tag
        names = dict(attributes)
        assert all(name in ATTRIBUTES or name.startswith("data-") for name in names), names
        self.ids[names.get("id") or ""] += 1
        if tag == "a":
            self.links.append(names["href"] or "")
        self.found.setdefault(tag, []).append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        assert not any(not each.isprintable() and each not in "\n\t" for each in data)
        if self.open:
            self.found[self.open[-1]][-1] += data
        if "style" not in self.open:
            self.shown += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)


def check(content: str) -> Reader:
    read = Reader(content)
    assert read.found["html"]
    (style,) = read.found["style"]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in content
    assert not re.search(r"url\(|@import", style)
    assert all(count == 1 for name, count in read.ids.items() if name)
    for link in read.links:
        assert (link.startswith("#") and read.ids[link[1:]] == 1) or re.fullmatch(
            r"https://attack\.mitre\.org/techniques/T\d{4}/(\d{3}/)?", link
        )
    return read


def explained(*arguments: str) -> str:
    result = CliRunner().invoke(policy_command, ["explain", "--html", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_rule_is_on_the_page_with_all_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    read = check(explained())
    checked = CliRunner().invoke(policy_command, ["check", "--json"]).stdout
    ids = {each["id"] for each in json.loads(checked)["rules"]}
    assert len(read.found["article"]) == len(read.found["h3"]) == len(ids) > 30
    assert read.found["b"][0] == str(len(ids))
    assert ids <= {*read.found["code"]} & {*read.found["a"]}
    for each in ("A protected sysctl is weakened", "T1562.001", "kernel", "policies/runtime_integrity/sysctl.rego:"):
        assert each in read.shown
    assert any(each.startswith("rules contains {") for each in read.found["code"])


def test_the_worst_comes_first_and_may_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    content = explained()
    severities = re.findall(r'<article class="card ?(\w*)"', content)
    order = ["critical", "high", "medium", "low", ""]
    assert severities == sorted(severities, key=order.index)
    chosen = re.findall(r"body:has\(#(\S+):checked\) \[data-(\w+)\]:not\(\[data-\w+~=\"(\w+)\"\]\)", content)
    assert ("severity-critical", "severity", "critical") in chosen
    for id_, name, value in chosen:
        assert f'name="{name}" id="{id_}"' in content
        assert id_ == f"{name}-{value}"
    assert set(re.findall(r'data-severity="(\w+)"', content)) <= {value for _, _, value in chosen}


def test_one_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    read = check(explained("SYSCTL001"))
    assert len(read.found["article"]) == 1
    assert CliRunner().invoke(policy_command, ["explain", "--html", "NOSUCH"]).exit_code != 0


def test_a_policy_of_hostile_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").mkdir()
    quoted = EVIL.replace("\\", "\\\\").replace('"', '\\"').replace("\x1b", "\\u001b").replace("\u202e", "\\u202e")
    about = "".join(f'#   {name}: "{quoted}"\n' for name in ("severity", "technique", "seen"))
    rego = (
        f'package krie.x\n\n# METADATA\n# title: "{quoted}"\n# description: "{quoted}"\n# custom:\n{about}'
        f'rules contains {{"id": {json.dumps(EVIL[:60])}, "action": "kill", "scope": "process"}} if {{\n'
        f'\tinput.event.kind == "runtime_integrity.ptrace"\n\tinput.process.comm == "{quoted}"\n}}\n'
    )
    (tmp_path / "policies/<img src=x>.rego").write_text(rego)
    (tmp_path / "krie.toml").write_text('[policy]\npaths = ["policies"]\n[plugins.runtime_integrity]\n')
    read = check(explained())
    assert "<script>alert(1)</script>" in read.shown
    assert r"\x1b[2J\u202e</style></title>" in read.shown
    assert "<img src=x>.rego:" in read.shown


def test_whatever_is_put_into_a_page_is_text() -> None:
    made = page(
        EVIL,
        [element("p", EVIL, class_=EVIL, id="x"), joined([EVIL, Html("<b>b</b>")], EVIL), lines(f"{EVIL}\n\t{EVIL}")],
    )
    read = check(made)
    assert read.found["b"] == ["b"]
    assert read.found["title"] == [
        r""""'><script>alert(1)</script><img src=x onerror=y>&amp;\x1b[2J\u202e</style></title><!--"""
    ]
    assert text(text("<")) == "&lt;"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("T1562.001", '<a href="https://attack.mitre.org/techniques/T1562/001/" rel="noreferrer">T1562.001</a>'),
        ("T1068", '<a href="https://attack.mitre.org/techniques/T1068/" rel="noreferrer">T1068</a>'),
        ("", "-"),
        ("T1068\n", "T1068\\n"),
        ("javascript:x", "javascript:x"),
    ],
)
def test_techniques(name: str, shown: str) -> None:
    assert technique(name) == shown


def review(text: str = "x") -> ReviewReport:
    return ReviewReport(
        text,
        (("old policy", text), ("recorded events", "1,234")),
        (Table("By rule", ("rule", "severity"), (("A1", "critical"), (text, text))),),
        (
            ReviewFinding("A1", "fires", "critical", "A title", "a.rego:3", ("hosts: web1 3", text), "T1068"),
            ReviewFinding(text, text, text, text, text, (text,), text),
        ),
        (text,),
        ("C", text),
    )


def test_a_review_shows_everything() -> None:
    read = check(as_html(review()))
    assert read.found["b"] == ["1,234"]
    for each in ("A title", "a.rego:3", "hosts", "web1 3", "T1068", "Rules of which nothing differs: 2", "By rule"):
        assert each in read.shown
    assert read.found["article"].count("") == len(read.found["article"]) == 2
    assert "critical" in read.found["span"]


def test_long_values_are_folded_and_the_worst_comes_first() -> None:
    findings = [ReviewFinding("L", "x", "low"), ReviewFinding("C", "x", "critical", details=(f"input: {'v' * 300}",))]
    read = check(as_html(ReviewReport("x", (), (), tuple(findings))))
    codes = [each for each in read.found["code"] if each]
    assert codes == ["C", "v" * 300, "L"]
    assert read.found["summary"] == ["v" * 100 + " ..."]


def test_a_review_of_hostile_texts() -> None:
    read = check(as_html(review(EVIL)))
    assert read.shown.count("<script>alert(1)</script>") >= 12
    assert [each for each in read.found if each == "script"] == []


def test_a_review_in_which_nothing_differs() -> None:
    assert "Nothing that was found." in check(as_html(ReviewReport("x", (), (), ()))).shown


def test_a_difference_of_policies_is_such_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "examples/ci")
    rules = (ROOT / "examples/ci/policies/site/site.rego").read_text()
    (tmp_path / "site.rego").write_text(rules.replace("uid < 1000", "uid < 2000"))
    result = CliRunner().invoke(policy_command, ["diff", "policies", str(tmp_path), "--format", "html"])
    assert result.exit_code == 11, result.output
    read = check(result.stdout)
    assert len(read.found["article"]) == 1
    for each in ("SITE002", "medium", "T1055.008", "A service account looks into another process", "1000..1999"):
        assert each in read.shown
    assert read.found["th"][:5] == ["rule", "severity", "ATT&CK", "tier", "title"]
    assert {"medium", "user"} <= set(read.found["span"]), "labels, as on the page of explain"
    assert "T1055.008" in read.found["a"]


@pytest.mark.parametrize(
    ("shape", "head", "row"),
    [
        ("table", r"^rule +severity +ATT&CK +tier +title$", r"^SITE002 +medium +T1055.008 +user +A service account"),
        (
            "markdown",
            r"^\| rule \| severity \| ATT&#38;CK \| tier \| title \|$",
            r"^\| <code>SITE002</code> \| <code>medium</code> \| <code>T1055&#46;008</code> \| <code>user</code> \|",
        ),
    ],
)
def test_the_tier_of_a_rule_is_a_column(
    shape: str, head: str, row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT / "examples/ci")
    rules = (ROOT / "examples/ci/policies/site/site.rego").read_text()
    (tmp_path / "site.rego").write_text(rules.replace("uid < 1000", "uid < 2000"))
    result = CliRunner().invoke(policy_command, ["diff", "policies", str(tmp_path), "--format", shape])
    assert result.exit_code == 11, result.output
    assert re.search(head, result.stdout, re.MULTILINE)
    assert re.search(row, result.stdout, re.MULTILINE)
