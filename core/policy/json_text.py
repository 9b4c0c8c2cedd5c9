"""Reads JSON as the standard has it: no NaN, no number that becomes infinite, no key twice, no depth without end.

Python's `json` takes all of these, and what it makes of them is refused by the engine without a place, or changes what
rules decide without a word.
"""

from __future__ import annotations

import json
import re

from ..errors import PolicyError
from ..events.wire import Json

MOST_DEPTH = 100
"""The embedded engine takes 128 of all data together."""
_LONGEST_NUMBER = 400
# Nothing is given back (`*+`): else each character of a text takes some hundred bytes.
_TOKEN = re.compile(
    r'[ \t\r\n]+|(?P<string>"(?:[^"\\\x00-\x1f]|\\.)*+")|(?P<open>[\[{])|(?P<close>[\]}])|(?P<between>[:,])'
    r"|(?P<word>[^\s\[\]{}:,\"]+)"
)


def read_json(text: str, place: str) -> Json:
    """The value of a text. Raises `PolicyError` with FILE:LINE:COLUMN."""
    _look_at(text, place)
    try:
        content: Json = json.loads(text)
    except json.JSONDecodeError as error:
        raise PolicyError(f"{place}:{error.lineno}:{error.colno}: is not valid JSON: {error.msg}") from error
    return content


def _look_at(text: str, place: str) -> None:
    """Find what the parser does not mind, without recursion; what is not valid JSON is left to the parser."""

    def refuse(at: int, problem: str) -> PolicyError:
        line, start = text.count("\n", 0, at) + 1, text.rfind("\n", 0, at)
        return PolicyError(f"{place}:{line}:{at - start}: {problem}")

    keys: list[set[str] | None] = []  # of each open collection; None: an array
    at, expects_key = 0, False
    while at < len(text) and (token := _TOKEN.match(text, at)) is not None:
        kind, word = token.lastgroup, token[0]
        if kind == "open":
            keys.append(set() if word == "{" else None)
            expects_key = word == "{"
            if len(keys) > MOST_DEPTH:
                raise refuse(at, f"is nested deeper than {MOST_DEPTH} levels; make the data flatter")
        elif kind == "close":
            if keys:
                keys.pop()
        elif kind == "between":
            expects_key = word == ","
        elif kind == "string":
            key = word[1:-1]
            if "\\" in word:
                try:
                    key = json.loads(word)
                except json.JSONDecodeError:
                    return
                if any("\ud800" <= each <= "\udfff" for each in key):
                    raise refuse(at, "holds half of a surrogate pair, which is not text; write the whole character")
            own = keys[-1] if expects_key and keys else None
            if own is None:
                at = token.end()
                continue
            expects_key = False
            if key in own:
                raise refuse(at, f"the key {word} exists already in this object; keep one of them")
            own.add(key)
        elif kind == "word":
            if word.lstrip("-") in ("NaN", "Infinity"):
                raise refuse(at, f"is not valid JSON: {word} is not a JSON number; write a number, or null")
            if word[:1] in "-0123456789" and (len(word) > _LONGEST_NUMBER or _infinite(word)):
                shown = word if len(word) < 20 else f"{word[:16]}..."
                raise refuse(at, f"the number {shown} is too large; write it as text")
        at = token.end()


def _infinite(word: str) -> bool:
    try:
        return float(word) in (float("inf"), float("-inf"))
    except ValueError:
        return False
