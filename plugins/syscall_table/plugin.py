"""What syscall_table gives to KRIe: probes that take looks, rules, names for what they find."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from krie import Event, Json, PluginConfig, Sensor, hookimpl

from .config import SyscallTableConfig
from .events import Activity, Code, Hook, Wrapped

_NAME = "syscall_table"


@hookimpl
def krie_config() -> type[PluginConfig]:
    """See `krie.hookspecs`."""
    return SyscallTableConfig


@hookimpl
def krie_sensor() -> Sensor:
    """See `krie.hookspecs`."""
    return Sensor(name=_NAME, version="1", events=(Hook, Code, Wrapped, Activity))


@hookimpl
def krie_attached() -> None:
    """See `krie.hookspecs`."""


@hookimpl
def krie_detaching() -> None:
    """See `krie.hookspecs`."""


@hookimpl
def krie_facts() -> Mapping[str, Json] | None:
    """See `krie.hookspecs`."""
    return None


@hookimpl
def krie_enrich() -> Mapping[str, Json] | None:
    """See `krie.hookspecs`."""
    return None


@hookimpl
def krie_scan() -> Iterable[Event]:
    """See `krie.hookspecs`."""
    return ()
