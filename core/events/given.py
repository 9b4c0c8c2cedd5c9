"""What rules saw besides an event, its process and its host: health and ancestors, which lines of the journal repeat.

A line names each of these values by a digest. The value itself is in the first line that needs it, and again once in a
while, since files are rotated away and lines can be lost. A digest depends on nothing but the value, so that it does
not matter which line, file or run of the agent told it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from ..printable import json_line
from .wire import Json

PARTS = ("health", "ancestors")
"""Of the input: `input.health`, `input.process.ancestors`."""
_AGAIN = 256
"""So many lines later, a value that is still in use is written again."""
_KNOWN = 4096
_DIGEST_BYTES = 16  # ancestors have names that others choose: nobody may find two lists with one digest
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def digest_of(text: str) -> str:
    """The name of a value that is this text as JSON, of `encoded`."""
    raw = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def encoded(value: Json) -> str:
    """A value as the text that digests are made of."""
    return _encode(value)


def named(values: Mapping[str, Json]) -> dict[str, tuple[str, str]]:
    """For each part its digest and its text."""
    return {name: (digest_of(text), text) for name, value in values.items() for text in (encoded(value),)}


class Told:
    """Which values one place for lines has been told recently."""

    def __init__(self) -> None:
        """Start with no value told."""
        self._lines = 0
        self._told: OrderedDict[str, int] = OrderedDict()

    def completed(self, line: str, given: Mapping[str, tuple[str, str]]) -> str:
        """The line, an object of JSON, with those of the values that are to be told with it."""
        self._lines += 1
        new = {digest: text for digest, text in given.values() if self._is_due(digest)}
        for digest in new:
            self._told.pop(digest, None)
            self._told[digest] = self._lines
        if len(self._told) > _KNOWN:
            self._told.popitem(last=False)
        if not new:
            return line
        values = ",".join(f'"{digest}":{json_line(text)}' for digest, text in new.items())
        return f'{line[:-1]},"values":{{{values}}}}}'

    def lost(self, given: Mapping[str, tuple[str, str]]) -> None:
        """The line that was completed last did not get there."""
        for digest, _ in given.values():
            self._told.pop(digest, None)

    def _is_due(self, digest: str) -> bool:
        return self._lines - self._told.get(digest, -_AGAIN) >= _AGAIN


class Values:
    """Values by digest, as lines tell them: the ones told last, as far as they fit."""

    def __init__(self, most_bytes: int = 64 << 20) -> None:
        """`most_bytes`: of their texts."""
        self._texts: OrderedDict[str, str] = OrderedDict()
        self._parsed: dict[str, Json] = {}
        self._most, self._bytes = most_bytes, 0

    def learn(self, values: object) -> dict[str, str]:
        """Take what a line tells; returns those whose digest is right, as text. Others are not values."""
        found: dict[str, str] = {}
        for digest, value in values.items() if isinstance(values, dict) else ():
            text = encoded(value)
            if digest_of(text) == digest:
                found[digest] = text
        self.take(found.items())
        return found

    def take(self, texts: Iterable[tuple[str, str]]) -> None:
        """Take what `learn` returned, perhaps in another process."""
        for digest, text in texts:
            self._bytes += len(text) - len(self._texts.pop(digest, ""))
            self._texts[digest] = text
        while self._bytes > self._most and self._texts:
            digest, dropped = self._texts.popitem(last=False)
            self._bytes -= len(dropped)
            self._parsed.pop(digest, None)

    def items(self) -> list[tuple[str, str]]:
        """All of them, those told last at the end."""
        return list(self._texts.items())

    def get(self, digest: object) -> str | None:
        """The value with this digest, as text."""
        return self._texts.get(digest) if isinstance(digest, str) else None

    def parsed(self, digest: object) -> Json:
        """The same as a value, for all who ask the same one: it must not be changed. None where it is not known."""
        text = self.get(digest)
        if text is None:
            return None
        assert isinstance(digest, str)
        if digest not in self._parsed:
            self._parsed[digest] = json.loads(text)
        return self._parsed[digest]
