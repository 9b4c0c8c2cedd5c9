"""Text for people: nothing of it is invisible, moves the cursor or reorders; and JSON stays what it was."""

import json
import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from krie.printable import json_line, lines_of, no_commands, one_line

TEXTS = st.text(st.characters(codec=None)) | st.text("\x1b\x9b\u202e\u200b\n[]\\é", max_size=20)


def zero_width(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Mn", "Me", "Zl", "Zp", "Cs", "Co", "Cn")


def test_no_character_of_all_is_shown_that_nobody_sees() -> None:
    for number in range(sys.maxunicode + 1):
        shown = one_line(chr(number))
        assert shown.isprintable(), hex(number)
        assert not any(map(zero_width, shown)), hex(number)


@pytest.mark.parametrize("name", ["plain", "Łódź", "日本語", "C:\\x", "[red]x[/]", ":skull:", "a b", "😀", "|/-<>"])
def test_what_is_visible_stays(name: str) -> None:
    assert one_line(name) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("a\r\tb\x00\x7f", r"a\r\tb\x00\x7f"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b2J\x85", r"\x9b2J\x85"),
        ("x\u202etxt.exe\u2066", r"x\u202etxt.exe\u2066"),
        ("a\u200bb\ufeff\u00ad", r"a\u200bb\ufeff\xad"),
        ("e\u0301\ufe0f\u034f", r"e\u0301\ufe0f\u034f"),
        ("\u2028\u2029\u3164", r"\u2028\u2029\u3164"),
        ("\U000e0041\ud800\udc80", r"\U000e0041\ud800\udc80"),
    ],
)
def test_what_is_not_becomes_an_escape(name: str, shown: str) -> None:
    assert one_line(name) == shown


@given(TEXTS)
def test_a_text_has_the_lines_that_its_line_breaks_make(text: str) -> None:
    shown = lines_of(text)
    assert len(shown) == text.count("\n") + 1
    assert all(each.isprintable() for each in shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("::stop-commands::x", r"\x3a:stop-commands::x"),
        ("a\n \t::error::x\n", "a\n \t\\x3a:error::x\n"),
        ("\N{NO-BREAK SPACE}::error::x", "\N{NO-BREAK SPACE}\\x3a:error::x"),
        ("x ##[add-mask]a ##[error]", r"x ##\x5badd-mask]a ##\x5berror]"),
        ("x ###vso[task.setvariable]a", r"x ###vso\x5btask.setvariable]a"),
        ("a::b ## [x] :x", "a::b ## [x] :x"),
    ],
)
def test_what_a_log_of_ci_says_is_no_command(text: str, shown: str) -> None:
    assert no_commands(text) == shown


@given(st.text("ab:# []\n"))
def test_no_text_is_a_command(text: str) -> None:
    shown = no_commands(text)
    assert not re.search(r"##\w*\[", shown)
    assert not any(line.strip().startswith("::") for line in shown.split("\n"))


def test_json_is_no_command_and_says_the_same() -> None:
    value = {"##[error]": ["::x", "##[add-mask]", "##vso[x]"]}
    for indent in (None, 2):
        line = json_line(json.dumps(value, indent=indent))
        assert no_commands(line) == line
        assert "##[" not in line
        assert json.loads(line) == value


@given(st.recursive(TEXTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)))
def test_json_says_the_same_in_visible_characters(value: object) -> None:
    line = json_line(json.dumps(value, ensure_ascii=False))
    assert line.isprintable()
    assert json.loads(line) == json.loads(json.dumps(value))
    assert json_line(json.dumps(value)) == json.dumps(value) or "\x7f" in json.dumps(value)
