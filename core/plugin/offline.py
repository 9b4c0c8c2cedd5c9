"""Plugins and event types for commands that need no kernel: nothing of it is tried."""

from __future__ import annotations

from ..config import Config
from ..events.agent import AGENT_EVENTS
from ..events.enforcement import ENFORCEMENT_EVENTS
from ..events.event import EventTypes
from ..kernel.features import Features
from ..output import complain
from .isolation import PluginFault
from .manager import Plugins


def load_plugins(config: Config, place: str) -> tuple[Plugins, list[PluginFault]]:
    """The configured plugins and what went wrong with them, which is printed too."""
    faults: list[PluginFault] = []
    loaded = Plugins.load(config, place, Features(), faults.append)
    for fault in faults:
        complain(fault.error, fault.traceback)
    return loaded, faults


def event_types(loaded: Plugins) -> EventTypes:
    """Those of the core and of these plugins."""
    own = (event for each in loaded.sensors for event in each.events)
    return EventTypes((*AGENT_EVENTS, *ENFORCEMENT_EVENTS, *own))
