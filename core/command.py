"""What commands share: their options, and plugins and event types without a kernel."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from .agent_events import AGENT_EVENTS
from .config import Config
from .enforcement_events import ENFORCEMENT_EVENTS
from .errors import KernelError
from .event import EventTypes
from .kernel.features import Features
from .plugin_guard import PluginFault
from .plugin_manager import Plugins

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="The configuration.", envvar="KRIE_CONFIG", show_default=True)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
DEFAULT_CONFIG = Path("krie.toml")


def load_plugins(config: Config, place: str) -> tuple[Plugins, list[PluginFault]]:
    """The configured plugins and what went wrong with them, which is printed too. Nothing of the kernel is tried."""
    faults: list[PluginFault] = []
    loaded = Plugins.load(config, place, Features(), faults.append)
    for fault in faults:
        print(f"krie: {fault.error}\n{fault.traceback}".rstrip(), file=sys.stderr)
    return loaded, faults


def event_types(loaded: Plugins) -> EventTypes:
    """Those of the core and of these plugins."""
    own = (event for each in loaded.sensors for event in each.events)
    return EventTypes((*AGENT_EVENTS, *ENFORCEMENT_EVENTS, *own))


def need_root() -> None:
    """Raise `KernelError` for anybody else."""
    if os.geteuid() != 0:
        raise KernelError("attaching BPF programs needs root", 0, "use sudo")
