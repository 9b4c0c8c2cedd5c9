"""Compares two policies in a process with limits: of an input that nobody tried before there may be no answer."""

from __future__ import annotations

import os

from ..child import ChildEnded, Link, forked, limit_memory, limit_time
from ..config import PolicyConfig
from ..errors import KrieError, PolicyError
from ..tier.compiled import note
from .cases import Difference
from .difference import Comparer

_TRIES_A_S = 500


def compared_apart(comparer: Comparer, limits: PolicyConfig) -> Difference:
    """What differs. Raises `PolicyError`, also where that takes more time or memory than there may be."""
    longest_s = limits.load_s + comparer.tries // _TRIES_A_S
    child = forked(lambda link: _compare(link, comparer, limits, longest_s))
    try:
        answer = child.receive(2 * longest_s)
    except (ChildEnded, TimeoutError) as error:
        how = child.end(0.2 if isinstance(error, ChildEnded) else 0.0)
        raise PolicyError(
            f"the policies could not be compared within {longest_s} s and {limits.memory_mib} MiB (policy.load_s, "
            f"policy.memory_mib): the process that did {how}; --tries 0 tries no inputs"
        ) from None
    child.end()
    if isinstance(answer, Difference):
        return answer
    raise PolicyError(str(answer))


def _compare(link: Link, comparer: Comparer, limits: PolicyConfig, longest_s: int) -> None:
    os.environ["RUST_LIB_BACKTRACE"] = "0"
    limit_memory(limits.memory_mib)
    limit_time(longest_s)
    comparer.note = note
    try:
        answer: Difference | str = comparer.compare()
    except KrieError as error:
        answer = str(error)
    except (RecursionError, MemoryError) as error:
        answer = f"the policies cannot be compared: {type(error).__name__}"
    os.ftruncate(2, 0)
    link.send(answer)
