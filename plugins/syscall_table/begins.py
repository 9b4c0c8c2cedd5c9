"""What functions of the kernel begin with: a place of ftrace's, or the jump of a hook."""

from __future__ import annotations

_ENDBR = b"\xf3\x0f\x1e\xfa"
_SEALED = (b"\x66\x0f\x1f\x00", b"\x0f\x1f\x40\xd6")
"""What the kernel puts in the place of an endbr that nothing needs (ed53a0d97192)."""
_NOPS = (b"\x0f\x1f\x44\x00\x00", b"\x66\x66\x66\x66\x90")
"""Of 5 bytes, since and before 5.13 (a89dfde3dc3c)."""
SITE_BYTES = 5
_JUMPS = (b"\xe9", b"\xeb", b"\xff\x25", b"\x68", b"\x48\xb8", b"\x49\xba", b"\x49\xbb")
"""jmp, jmp *address, push (and ret), mov to %rax, %r10, %r11 (and jmp)."""
_CALL, _TRAP = b"\xe8", b"\xcc"


def first_place(content: bytes) -> int:
    """Where behind endbr, or what was put in its place, a function really begins."""
    return len(_ENDBR) if content[: len(_ENDBR)] in (_ENDBR, *_SEALED) else 0


def site_in(content: bytes) -> int | None:
    """Where at the begin of a function ftrace's nop is, or the call or breakpoint that was put in its place."""
    start = first_place(content)
    return start if is_ftraces(content[start : start + SITE_BYTES]) else None


def is_ftraces(code: bytes) -> bool:
    """Whether these 5 bytes are what ftrace puts in its place."""
    return code in _NOPS or code[:1] in (_CALL, _TRAP)


def jumps_away(content: bytes) -> bool:
    """Whether a function begins with what hooks begin with: a jump, or an address that is about to be jumped to."""
    start = first_place(content)
    return content[start:].startswith(_JUMPS)
