"""Text on its way to people: nothing that others chose of it steers a terminal, hides or reorders what is shown."""

from __future__ import annotations

import json
import re
import unicodedata

_INVISIBLE_LETTERS = "\u115f\u1160\u3164\uffa0"
"""Hangul fillers: letters by category, and yet nothing is seen of them."""
_MARKS = frozenset({"Mn", "Me"})
"""Categories of characters without a width of their own: they change the one before, which may be ours."""
_COMMAND_AT_START = re.compile(r"^(\s*):(?=:)", re.MULTILINE)
_COMMAND_ANYWHERE = re.compile(r"(##\w*)\[")
_SUSPECT = re.compile("[\x7f-\U0010ffff]")
"""What JSON leaves as it is, and may have to be escaped."""


def one_line(value: object) -> str:
    r"""A value's text in which each character that is not plainly visible is an escape, such as `\n` or `\u202e`.

    Which ones these are is Unicode's to say (its categories Other, Separator but for the space, and marks without
    width), so that controls, line breaks, bidirectional and zero-width characters of any kind are among them.
    """
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(each if _visible(each) else each.encode("unicode_escape").decode() for each in text)


def lines_of(value: object) -> list[str]:
    """The same for a text whose own line breaks are meant, such as a compiler's diagnostics."""
    return [one_line(line) for line in str(value).expandtabs().split("\n")]


def no_commands(text: str) -> str:
    r"""Lines of which CI systems that read a log take none for a command of theirs, such as `::stop-commands::x` at a
    line's start, or `##[add-mask]x` and `##vso[x]` anywhere: a character of it becomes an escape, as in `one_line`."""
    if "::" in text:
        text = _COMMAND_AT_START.sub(r"\1\\x3a", text)
    return _COMMAND_ANYWHERE.sub(r"\1\\x5b", text) if "##" in text else text


def json_line(text: str) -> str:
    """JSON in which the same characters, and what a CI system would take for a command, are escaped as JSON does it: to
    whatever reads it, it says what it said."""
    if "##" in text:
        # It can only be in a string; and no line of JSON begins with ::.
        text = _COMMAND_ANYWHERE.sub(r"\1\\u005b", text)
    if text.isascii() and "\x7f" not in text:
        return text
    return _SUSPECT.sub(lambda found: found[0] if _visible(found[0]) else _json_escape(found[0]), text)


def _visible(character: str) -> bool:
    return (
        character.isprintable()
        and unicodedata.category(character) not in _MARKS
        and character not in _INVISIBLE_LETTERS
    )


def _json_escape(character: str) -> str:
    return json.dumps(character)[1:-1] if character != "\x7f" else "\\u007f"
