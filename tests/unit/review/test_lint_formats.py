"""What machines read of a report: valid, complete, and nothing in it means more than it says."""

import html
import json
import re
from pathlib import Path

import jsonschema
import pytest
from krie.cli.render import console
from krie.cli.render_lint import lint as render
from krie.review.findings import (
    ERROR,
    KRIE,
    OPA,
    REGAL,
    WARNING,
    Finding,
    Looked,
    Place,
    Report,
    place_from,
    report_of,
    said_of,
)
from krie.review.lint_formats import as_github, as_gitlab, as_json, as_markdown, as_sarif, literal, summary

from .. import sarif

EVIL = (
    "a|b`c`<script>@all\n::error file=x::forged\r\n##[stop-commands]x\x1b[2J\u202e%0A,title=y:z\ud800"
    " www.x.yz https://x.yz #1"
)
SEVERAL = (
    Finding(Place("policies/a.rego", 3, 5), KRIE, "meaning", "compares", "write 0", rule="A1"),
    Finding(Place("policies/a.rego", 4), OPA, "type-error", "undefined ref", "did you mean b?", url="https://x/y"),
    Finding(Place("policies/b.rego", 1, 1), REGAL, "style/opa-fmt", "format it", "see https://x/z", WARNING),
)
HOSTILE = (Finding(Place(EVIL, 1, 2), KRIE, EVIL, EVIL, EVIL, rule=EVIL, url=EVIL),)


def made(findings: tuple[Finding, ...] = SEVERAL, why: str = "") -> Report:
    looked = (Looked(KRIE), Looked(OPA, "/usr/bin/opa"), Looked(REGAL, "/usr/bin/regal" if not why else "", why))
    return Report("r1", looked, findings)


@pytest.mark.parametrize("report", [made(), made(why="none is installed"), made(HOSTILE), made(())])
def test_sarif_is_as_its_schema_says(report: Report) -> None:
    log = json.loads(as_sarif(report))
    jsonschema.validate(log, sarif.log())
    for run in log["runs"]:
        rules = run["tool"]["driver"]["rules"]
        assert all(rules[each["ruleIndex"]]["id"] == each["ruleId"] for each in run["results"])
    assert [run["invocations"][0]["executionSuccessful"] for run in log["runs"]] == [
        not each.why for each in report.looked
    ]


def test_sarif_says_where() -> None:
    krie, opa, _ = json.loads(as_sarif(made()))["runs"]
    (where,) = krie["results"][0]["locations"]
    assert where["physicalLocation"] == {
        "artifactLocation": {"uri": "policies/a.rego", "uriBaseId": "SRCROOT"},
        "region": {"startLine": 3, "startColumn": 5},
    }
    assert krie["results"][0]["message"]["text"] == "rule A1: compares\n\nHow to fix: write 0"
    assert opa["results"][0]["locations"][0]["physicalLocation"]["region"] == {"startLine": 4}
    (absolute,) = json.loads(as_sarif(made((Finding(Place("/a b", 1), KRIE, "x", "w", "f"),))))["runs"][0]["results"]
    assert absolute["locations"][0]["physicalLocation"]["artifactLocation"] == {"uri": "file:///a%20b"}


def test_sarif_has_no_links() -> None:
    (result,) = json.loads(as_sarif(made((Finding(Place("a"), KRIE, "x", "[click](https://x)", "f"),))))["runs"][0][
        "results"
    ]
    assert result["message"]["text"].startswith(r"\[click\](https://x)")


def test_a_fingerprint_stays_while_lines_move() -> None:
    one, other = (Finding(Place("a", line), KRIE, "x", "w", "f") for line in (1, 9))
    assert one.fingerprint == other.fingerprint != Finding(Place("b", 1), KRIE, "x", "w", "f").fingerprint


def test_annotations_have_errors_first() -> None:
    assert as_github(made(SEVERAL[::-1], "none: 50 %")).splitlines() == [
        "::error file=policies/a.rego,line=4,title=opa/type-error::undefined ref%0Adid you mean b?",
        "::error file=policies/a.rego,line=3,col=5,title=krie/meaning::rule A1: compares%0Awrite 0",
        "::warning file=policies/b.rego,line=1,col=1,title=regal/style/opa-fmt::format it%0Asee https://x/z",
        "::warning title=regal did not look::none: 50 %25",
        "::notice title=krie policy lint::2 errors, 1 warning; did not look: regal",
    ]


def test_annotations_hold_nothing_but_what_they_are_about() -> None:
    text = as_github(made(HOSTILE))
    error, notice = text.splitlines()
    assert notice.startswith("::notice ")
    properties, data = re.fullmatch(r"::error ([^:]*)::(.*)", error).groups()  # type: ignore[union-attr]
    assert [each.partition("=")[0] for each in properties.split(",")] == ["file", "line", "col", "title"]
    assert data.count("%0A") == 1  # before the fix
    assert error.isprintable()
    assert r"\x1b[2J\u202e%250A" in data


def test_a_log_that_ci_reads_has_no_commands(capsys: pytest.CaptureFixture[str]) -> None:
    forged = Finding(Place("::stop-commands::x.rego", 1), KRIE, "x", "##[error]forged", "::error::y")
    blank = Finding(Place(" ::stop-commands::x.rego", 1), KRIE, "x", "forged", "none")
    render(console(), made((*HOSTILE, forged, blank)))
    text = capsys.readouterr().out
    assert not re.search(r"^\s*::", text, re.MULTILINE)
    assert "##[" not in text
    assert all(line.isprintable() for line in text.split("\n"))


def test_people_see_place_and_fix(capsys: pytest.CaptureFixture[str]) -> None:
    render(console(), made(why="none is installed"))
    assert capsys.readouterr().out.splitlines() == [
        "policies/a.rego:3:5: error: rule A1: compares [krie/meaning]",
        "    fix: write 0",
        "policies/a.rego:4: error: undefined ref [opa/type-error]",
        "    fix: did you mean b?",
        "policies/b.rego:1:1: warning: format it [regal/style/opa-fmt]",
        "    fix: see https://x/z",
        "",
        "krie  1 error, 0 warnings",
        "opa   1 error, 0 warnings (/usr/bin/opa)",
        "regal did not look: none is installed",
        "2 errors, 1 warning; did not look: regal",
    ]


def test_markdown_shows_texts_as_they_are() -> None:
    text = as_markdown(made(HOSTILE))
    assert not re.search(r"[@`\x1b\u202e]|<(?!/?code>)|https?:|www\.|::", text)
    (row,) = [line for line in text.splitlines() if line.startswith("| error")]
    assert row.count("|") == 6
    cells = [html.unescape(re.sub("</?code>", "", each)) for each in row.split(" | ")]
    assert cells[4].startswith(r"a|b`c`<script>@all\n::error file=x::forged\r\n")


def test_a_comment_stays_small_and_says_what_it_leaves_out() -> None:
    many = tuple(Finding(Place("a", line), KRIE, "x", "!" * 9999, "f") for line in range(1, 5000))
    text = as_markdown(made(many))
    assert len(text) < 21_000
    rows = text.count("| error |")
    assert rows > 1
    assert f"... and {4999 - rows:,} more." in text


def test_literal() -> None:
    assert literal("") == ""
    assert literal("plain ä") == "<code>plain ä</code>"
    assert len(html.unescape(literal("x" * 9999))) < 500


def test_gitlab() -> None:
    first = json.loads(as_gitlab(made()))[0]
    assert first == {
        "description": "rule A1: compares; write 0",
        "check_name": "krie/meaning",
        "fingerprint": SEVERAL[0].fingerprint,
        "severity": "major",
        "location": {"path": "policies/a.rego", "lines": {"begin": 3}},
    }


def test_json_says_everything() -> None:
    content = json.loads(as_json(made(why="none")))
    assert (content["errors"], content["warnings"], content["revision"]) == (2, 1, "r1")
    assert [(each["name"], each["looked"], each["errors"]) for each in content["tools"]] == [
        ("krie", True, 1),
        ("opa", True, 1),
        ("regal", False, 0),
    ]
    assert content["findings"][1]["url"] == "https://x/y"
    assert all(as_json(made(HOSTILE)).split("\n")[at].isprintable() for at in range(20))


def test_a_report_is_in_order_without_doubles() -> None:
    found = report_of("r", [Looked(KRIE), Looked(OPA, why="x")], [*SEVERAL[::-1], *SEVERAL], [OPA], Place("k.toml"))
    assert found.findings[1:] == SEVERAL
    assert (found.findings[0].code, found.findings[0].severity, found.findings[0].place) == (
        "not-run",
        ERROR,
        Place("k.toml"),
    )
    assert summary(made(())) == "0 errors"


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert place_from(f"{tmp_path}/a.rego:3:4") == Place("a.rego", 3, 4)
    assert place_from("/elsewhere/a.rego:3") == Place("/elsewhere/a.rego", 3)
    here = Place("krie.toml")
    assert said_of("/x/a:b.rego:1:2: no: such", here) == (Place("/x/a:b.rego", 1, 2), "no: such")
    assert said_of("/x/a.json: sets data.x", here) == (Place("/x/a.json"), "sets data.x")
    assert said_of("the policy is nested too deeply", here) == (here, "the policy is nested too deeply")
