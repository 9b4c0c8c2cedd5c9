"""A variable of the kernel that is watched: what it held at the start, and what it should hold."""

from __future__ import annotations

from dataclasses import dataclass

from .parameters import Parameter

_SHOWN = 32
"""Bytes that are shown of what is neither a number nor text, from the first that differs."""


@dataclass(slots=True)
class Watched:
    """One variable that is there, with what it held at the start."""

    parameter: Parameter
    address: int
    size: int
    start: bytes
    told: bytes | None = None
    """The value that was last reported as different."""
    since: int = 0

    def good(self, now: bytes) -> bytes:
        """What it should hold, given what it holds: the same where that is as it should be."""
        one = self.parameter
        if one.form == "bytes":
            return self.start
        if one.form == "text":
            wanted = self.wanted_text()
            return now if text_of(now) == wanted else wanted
        held, (least, most) = self._number(now), self.bounds()
        if one.baseline == "set":  # what it was, and not the least that it may be
            wanted_number = held or self._number(self.start)
        else:
            wanted_number = held if least is None else max(held, least)
            wanted_number = wanted_number if most is None else min(wanted_number, most)
        return now if wanted_number == held else self._written(now, wanted_number)

    def bounds(self) -> tuple[int | None, int | None]:
        """The least and the most that a number may be; None: no bound. `set` is about numbers without a sign."""
        one, before = self.parameter, self._number(self.start)
        if one.value is not None:
            return one.value, one.value
        if one.baseline == "set":
            return (1 if before else None), None
        least = {"not_lower": before, "same": before}.get(one.baseline or "", one.least)
        most = {"not_higher": before, "same": before}.get(one.baseline or "", one.most)
        return least, most

    def wanted_text(self) -> bytes:
        """What a text should be, without its end."""
        return text_of(self.start) if self.parameter.text is None else self.parameter.text.encode()

    def shown(self, value: bytes, other: bytes) -> tuple[str, int]:
        """A value for people, and the first byte that differs from the other one."""
        if self.parameter.form == "number":
            return str(self._number(value)), 0
        if self.parameter.form == "text":
            return text_of(value).decode(errors="backslashreplace"), 0
        offset = next((at for at, pair in enumerate(zip(value, other, strict=True)) if pair[0] != pair[1]), 0)
        return value[offset : offset + _SHOWN].hex(), offset

    def expectation(self) -> str:
        """What it should be, in words; empty where only bytes can tell."""
        one, before = self.parameter, self._number(self.start) if self.parameter.form == "number" else 0
        number = before if one.value is None else one.value
        if one.least is not None and one.most is not None:
            return f"{one.least} to {one.most}"
        words = {"not_lower": f"at least {before}", "not_higher": f"at most {before}", "set": "not 0"}
        if one.baseline in words:
            return words[one.baseline]
        if one.least is not None or one.most is not None:
            return f"at least {one.least}" if one.least is not None else f"at most {one.most}"
        if one.form == "text":
            return self.wanted_text().decode(errors="backslashreplace")
        return str(number) if one.form == "number" else ""

    def _number(self, value: bytes) -> int:
        whole = int.from_bytes(value, "little", signed=self.parameter.signed)
        return whole if self.parameter.mask is None else whole & self.parameter.mask

    def _written(self, now: bytes, wanted: int) -> bytes:
        if (mask := self.parameter.mask) is not None:
            wanted = (int.from_bytes(now, "little") & ~mask) | (wanted & mask)
        return (wanted & ((1 << 8 * self.size) - 1)).to_bytes(self.size, "little")

    def as_written(self, value: bytes) -> bytes:
        """A value as its interface takes it."""
        if self.parameter.form == "text":
            return text_of(value) + b"\n"
        return b"%d\n" % int.from_bytes(value, "little", signed=self.parameter.signed)


def text_of(value: bytes) -> bytes:
    """Up to its end."""
    return value.partition(b"\0")[0]
