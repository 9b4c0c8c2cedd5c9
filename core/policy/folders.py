"""Which folders and which data the configuration makes the policy of."""

from __future__ import annotations

from pathlib import Path

from ..config import Config
from ..events.wire import Json
from ..plugin.manager import Plugins
from ..processes.sensor import process_sensor


def policy_folders(config: Config, plugins: Plugins) -> tuple[Path, ...]:
    """Folders of the core and the loaded plugins, then those of the configuration."""
    sensors = (process_sensor(), *plugins.sensors)
    own = (Path(str(sensor.policies)) for sensor in sensors if sensor.policies is not None)
    return (*own, *map(Path, config.policy.paths))


def is_configured(folder: Path, config: Config) -> bool:
    """Whether the configuration names it, and neither the core nor a plugin brings it."""
    return folder in map(Path, config.policy.paths)


def policy_data(config: Config) -> dict[str, Json]:
    """What the configuration adds to the data of the folders."""
    return {"executables": dict(config.executables)}
