"""Which plugins are installed: known by their entry points, without importing any."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points

from ..errors import ConfigError, PluginError

GROUP = "krie"
"""The entry-point group, and the name that pluggy knows the hooks by."""


def available() -> dict[str, EntryPoint]:
    """Installed plugins by name, none of them imported. Raises `PluginError` for a name that is announced twice."""
    found: dict[str, EntryPoint] = {}
    for each in entry_points(group=GROUP):
        if (other := found.setdefault(each.name, each)).value != each.value:
            raise PluginError(each.name, f"is announced twice: as {other.value} and as {each.value}; uninstall one")
    return found


def require_installed(name: str, installed: Mapping[str, EntryPoint], place: str) -> None:
    """Raise `ConfigError` for a name in the configuration, `place`, that no installed plugin has."""
    if name not in installed:
        raise ConfigError(f"{place}: [plugins.{name}]", f"names no installed plugin; {_hint(name, installed)}")


def require_all_installed(names: Iterable[str], place: str) -> None:
    """The same of all of them. Raises `PluginError`, too, as `available` does."""
    installed = available()
    for each in names:
        require_installed(each, installed, place)


def _hint(name: str, installed: Mapping[str, EntryPoint]) -> str:
    near = difflib.get_close_matches(name, installed, 1)
    return f"did you mean {near[0]!r}?" if near else f"installed are: {', '.join(sorted(installed)) or 'none'}"
