"""Places in the kernel's code to which an attacker may forge a return."""

import re
import struct
from collections.abc import Iterator

from krie.plugins.cfi.declaration import shipped
from krie.plugins.cfi.derivation import Code

_EPILOGUE = re.compile(
    rb"(?:\x48[\x63\x89][\xc0-\xff]|\x48\x98|[\x31\x89][\xc0-\xff]|([\x5b\x5d]|\x41[\x5c-\x5f])|\x48\x83\xc4(.))",
    re.DOTALL,
)
"""Moves between registers, of the kind that come before a return; a word from the stack; several."""


def elsewhere(code: Code) -> Iterator[tuple[int, int, str]]:
    """Places behind calls where the kernel returns, of functions that call nothing locked; and words, see below."""
    legal = {
        each for callers in code.callers(shipped().functions, shipped().jumps()).values() for each in callers.returns
    }
    for match in re.finditer(rb"\xe8...[\x00\xff](?=[\x5b\xc3\xe9])", code.text, re.DOTALL):
        place = code.base + match.end()
        if place not in legal and (words := returns_after(code, place)) is not None:
            yield place, words, code.name(place)


def returns_after(code: Code, place: int) -> int | None:
    """How many words the code there takes from the stack before it returns; None where it does more than that."""
    words, at = 0, place - code.base
    while match := _EPILOGUE.match(code.text, at):
        words += match[1] is not None
        words += match[2][0] // 8 if match[2] is not None else 0
        at = match.end()
    if code.text[at : at + 1] == b"\xe9":
        target = code.base + at + 5 + struct.unpack_from("<i", code.text, at + 1)[0]
        return words if code.name(target).partition("+")[0] in ("__x86_return_thunk", "srso_return_thunk") else None
    return words if code.text[at : at + 1] == b"\xc3" else None
