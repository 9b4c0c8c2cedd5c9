"""What can be done about events of a kind: by mode of their plugin, and by what is attached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..decision import Mode
from ..enforce.enforcer import Ability
from ..plugin.manager import Plugins
from ..plugin.probe import Enforcement as Can
from ..plugin.probe import Sensor
from .health import ProbeHealth


class Abilities:
    """Looked up once a kind and kept: neither modes nor the chosen alternatives change."""

    def __init__(
        self, sensors: Iterable[Sensor], modes: Mapping[str, Mode], probes: ProbeHealth, plugins: Plugins
    ) -> None:
        """`sensors`: all that declare kinds; `plugins` may put back what they find."""
        self._owners = {event.KIND: sensor.name for sensor in sensors for event in sensor.events}
        self._modes, self._probes, self._plugins = modes, probes, plugins
        self._known: dict[int, Ability] = {}

    def of(self, kind: int) -> Ability:
        """What can be done about this kind."""
        if kind not in self._known:
            owner = self._owners.get(kind, "")
            probes = [
                each for each in self._probes.reports if each.probe.event is not None and kind == each.probe.event.KIND
            ]
            refuses = any(Can.REFUSE in each.alternative.can for each in probes if each.alternative is not None)
            restore = None if probes else self._plugins.restorer(owner)
            self._known[kind] = Ability(self._modes.get(owner, Mode.OBSERVE), refuses, restore)
        return self._known[kind]
