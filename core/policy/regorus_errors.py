"""What regorus raises, as one line of KRIe's."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from ..errors import PolicyError

_WHERE = re.compile(r"^--> (?P<file>.*):(?P<line>\d+):(?P<column>\d+)$", re.MULTILINE)
_WHAT = re.compile(r"^error: (?P<what>.*?)(?:\n\nStack backtrace|\Z)", re.MULTILINE | re.DOTALL)
_T = TypeVar("_T")


def as_policy_error(action: Callable[[], _T]) -> _T:
    """Turn whatever regorus raises into `PolicyError`; a panic in it is not an `Exception`."""
    try:
        return action()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise PolicyError(message_of(str(error))) from None


def message_of(text: str) -> str:
    """One line out of regorus's report: FILE:LINE:COLUMN: what is wrong."""
    where, what = _WHERE.search(text), _WHAT.search(text)
    message = " ".join((what["what"] if what is not None else text.partition("\n\nStack backtrace")[0]).split())
    return f"{where['file']}:{where['line']}:{where['column']}: {message}" if where is not None else message
