"""What `krie plugins` lists: installed plugins, and of those that are configured how they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config_file import plugin_modes
from ..plugin.installed import available, require_installed

Row = dict[str, Any]


def installed(path: Path | None) -> list[Row]:
    """Name, state and distribution of each, from the configuration at `path` and the entry points alone.

    Raises `KrieError`.
    """
    modes, found = plugin_modes(path), available()
    for name in modes:
        require_installed(name, found, str(path))
    return [
        {
            "name": name,
            "state": modes.get(name, "not configured"),
            "distribution": f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "",
        }
        for name, entry in sorted(found.items())
    ]


def loaded(path: Path | None) -> list[Row]:
    """The same, and what the configured ones, which are imported, bring or lack. Raises `KrieError`."""
    from ..config import Config, load_config  # noqa: PLC0415 - which imports pydantic
    from ..plugin.offline import load_plugins  # noqa: PLC0415

    plugins, faults = load_plugins(load_config(path) if path is not None else Config(), str(path))
    wrong = {fault.plugin: fault.error for fault in faults}
    sensors = {each.name: each.sensor for each in plugins.loaded if each.sensor is not None}
    rows = []
    for row in installed(path):
        sensor = sensors.get(row["name"])
        more = {
            "probes": [each.name for each in sensor.probes] if sensor is not None else [],
            "events": [each.NAME for each in sensor.events] if sensor is not None else [],
            "problem": wrong.get(row["name"], ""),
        }
        rows.append({**row, **more, **({"state": "degraded"} if more["problem"] else {})})
    return rows


def show(rows: list[Row]) -> None:
    """Print a table."""
    from .render import console, table  # noqa: PLC0415 - --json renders nothing

    columns = [each for each in ("name", "state", "distribution", "probes", "problem") if each in rows[0]]
    cells = [[", ".join(row[key]) if isinstance(row[key], list) else row[key] for key in columns] for row in rows]
    console().print(table("Plugins", columns, cells))
