"""Functions by which security modules are asked, in lists of which each has the functions of one hook.

Since 6.12 (417c5643cd67) there are none: they are called by static calls, which are compared as code.
"""

from __future__ import annotations

from collections.abc import Iterator

from krie import KernelError

from .entry import Entry
from .walker import Walker

NAME = "security hooks"
_HEADS = "security_hook_heads"
SYMBOLS = (_HEADS,)
_LISTED, _HOOK = ("security_hook_list", "list"), ("security_hook_list", "hook")
FIELDS = (_LISTED, _HOOK)
SIZES = ((_HEADS, ""),)


def has_lists(walker: Walker) -> bool:
    """Whether this kernel asks them by lists, as far as it tells."""
    return walker.offsets.get(_LISTED) is not None


def security_hooks(walker: Walker) -> Iterator[Entry]:
    """Raises `KernelError` where the kernel does not tell where they are."""
    heads, size = walker.address(_HEADS), walker.offset(f"#{_HEADS}", "")
    listed, hook = walker.offset(*_LISTED), walker.offset(*_HOOK)
    if not heads:
        raise KernelError("looking for the hooks of security modules", 0)
    for head in range(heads, heads + size, 8):
        for each in walker.chain(walker.number(head), 0):
            at = each - listed + hook
            yield Entry(NAME, at, walker.number(at))
