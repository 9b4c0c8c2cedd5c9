"""Several plugins from outside, each a module in memory with the hooks that a test wants."""

import sys
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import krie.plugin.manager
import pytest
from krie import Sensor, hookimpl
from krie.config import Config
from krie.kernel.features import Features
from krie.plugin.isolation import PluginFault
from krie.plugin.manager import Plugins

from .example import Thing


class Entries:
    """Entry points that lead to modules in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.faults: list[PluginFault] = []
        self._monkeypatch = monkeypatch
        self._entries: dict[str, EntryPoint] = {}
        monkeypatch.setattr(krie.plugin.manager, "available", lambda: self._entries)

    def install(self, name: str, **hooks: Any) -> None:
        module = ModuleType(f"example_{name}")
        for hook, function in hooks.items():
            setattr(module, hook, hookimpl(function))
        self._monkeypatch.setitem(sys.modules, module.__name__, module)
        self._entries[name] = EntryPoint(name, module.__name__, "krie")

    def load(self, **plugins: dict[str, Any]) -> Plugins:
        return Plugins.load(Config(plugins=plugins), "krie.toml", Features(), self.faults.append)


def sensor(**changes: Any) -> Sensor:
    return Sensor(**{"name": "example", "version": "1", "events": (Thing,), **changes})
