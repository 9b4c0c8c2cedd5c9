"""Compile the C of plugins, all alternatives and with warnings: `python -m krie.testing.check_c [PLUGIN...]`.

A field that the event class marks `Inline` and that the C never fills is an error: the kernel would decide by a zero.
Without names, all plugins that come with KRIe. Needs root and BPF, attaches nothing. Exit code 1 for any warning.
"""

from __future__ import annotations

import sys

from ..config import Config
from ..enforce.guard_sensor import enforcing_sensors
from ..errors import KrieError
from ..kernel.features import Features
from ..loader.launcher import LoaderProcess
from ..loader.messages import Purpose, Request
from ..loader.request import sensor_request
from ..output import complain_text
from ..plugin.installed import available
from ..plugin.manager import Plugins
from ..processes.sensor import process_sensor
from .inline_fields import unfilled

_ANSWER_S = 600
"""Longest time for the compiler, on a machine that is busy."""


def warnings(plugins: list[str]) -> list[str]:
    """What the compiler has to say. Raises `KrieError` where it does not compile at all."""
    names = plugins or [name for name, entry in available().items() if entry.dist and entry.dist.name == "krie"]
    loaded = Plugins.load(
        Config(plugins={name: {"required": True} for name in names}), "check", Features(), lambda _: None
    )
    sensors = [
        process_sensor(),
        *enforcing_sensors(),
        *(each.sensor for each in loaded.loaded if each.sensor is not None),
    ]
    requests = tuple(sensor_request(each) for each in sensors if each.sources)
    with LoaderProcess(_ANSWER_S) as child:
        child.features()
        answer = child.load(Request(requests, 16, allow_every_syscall=True, purpose=Purpose.CHECK)).loaded
    never = (each for sensor in sensors for each in unfilled(sensor))
    return [*answer.warnings, *(f"wrong offset: {each}" for each in answer.wrong_offsets), *never]


def main() -> int:
    """Print what is wrong."""
    try:
        found = warnings(sys.argv[1:])
    except KrieError as error:
        found = [str(error)]
    for each in found:
        complain_text(each)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
