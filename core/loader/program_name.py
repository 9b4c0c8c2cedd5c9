"""What a program is called in the kernel, which keeps 15 characters: no two of one agent have the same name."""

from __future__ import annotations

import string
from collections.abc import Iterable

from ..kernel.program import Program
from .source import Unit

_MOST = 15
_DIGITS = string.digits + string.ascii_lowercase


def name_of(program: Program, unit: Unit) -> str:
    """`ri_module_lo_2k`: the sensor, shortened; what its function is there; and its number among all of the unit."""
    sensor = _sensor_of(program.function, unit.sensors)
    number = _base_36(unit.programs.index(program.label))
    what = f"{_short(sensor)}_{program.function.removeprefix(f'{sensor}_')}"
    return f"{what[: _MOST - 1 - len(number)].rstrip('_')}_{number}"


def _sensor_of(function: str, sensors: Iterable[str]) -> str:
    """The one whose name the function's begins with; of two, the longer one."""
    return max((each for each in sensors if function.startswith(f"{each}_")), key=len, default="")


def _short(sensor: str) -> str:
    """The initials of its words, or the begin of its only one."""
    words = [each for each in sensor.split("_") if each]
    return "".join(each[0] for each in words)[:4] if len(words) > 1 else sensor[:3]


def _base_36(number: int) -> str:
    high, low = divmod(number, len(_DIGITS))
    return (_base_36(high) if high else "") + _DIGITS[low]
