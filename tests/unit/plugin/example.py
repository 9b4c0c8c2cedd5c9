"""A plugin from outside, made of the hooks that a test wants, and what loads it."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Annotated, Any

import krie.plugin.manager
import pytest
from krie import U64, Doc, Event, Sensor, hookimpl
from krie.config import Config
from krie.kernel.features import Features
from krie.plugin.isolation import PluginFault
from krie.plugin.manager import Plugins


@dataclass(frozen=True, slots=True)
class Thing(Event):
    """An event of a plugin from outside."""

    KIND = 0x9001
    NAME = "example.thing"

    value: Annotated[U64, Doc("something")]


@dataclass(frozen=True, slots=True)
class Stranger(Event):
    """An event that the sensor does not list."""

    KIND = 0x9002
    NAME = "example.stranger"

    value: Annotated[U64, Doc("something")]


def krie_sensor() -> Sensor:
    return Sensor(name="example", version="1", events=(Thing,))


class Setting:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.faults: list[PluginFault] = []
        self._monkeypatch = monkeypatch

    def load(self, own: dict[str, Any] | None = None, **names: Any) -> Plugins:
        """Load a plugin whose module has these names and a sensor."""
        module = ModuleType("example_plugin")
        vars(module).update({"krie_sensor": hookimpl(krie_sensor), **names})
        return self.load_object(module, own)

    def load_object(self, plugin: object, own: dict[str, Any] | None = None) -> Plugins:
        module = ModuleType("example_holder")
        module.__dict__["plugin"] = plugin
        self._monkeypatch.setitem(sys.modules, module.__name__, module)
        entry = EntryPoint("example", "example_holder:plugin", "krie")
        self._monkeypatch.setattr(krie.plugin.manager, "available", lambda: {"example": entry})
        return Plugins.load(Config(plugins={"example": own or {}}), "krie.toml", Features(), self.faults.append)


def facts(kind: str) -> Mapping[str, Any]:
    return {"colour": {"type": "string"}}
