"""What cfi gives to KRIe: a probe at each locked function, rules, and what the lock was made of."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Annotated

from krie import (
    Alternative,
    AttachType,
    ConfigError,
    Enforcement,
    Event,
    Features,
    Json,
    KernelMemory,
    Maps,
    PluginConfig,
    PluginError,
    Probe,
    Program,
    Sensor,
    hookimpl,
    own_fields,
    system_call,
)
from pydantic import Field

from . import act, lock_file
from .declaration import MOST_CONFIGURED, Declaration, Symbol, shipped
from .events import Activity, Caller, Lock
from .live import running_build_id
from .lock import Live, facts_schema
from .maps import DEFINES, SHARED

_NAME = "cfi"
_FAILED = Program(AttachType.KPROBE, "commit_creds", f"{_NAME}_failed", through=f"{_NAME}_failing", proven=False)
"""What all checks go on to where something is wrong."""
_SOURCES = ("rights.bpf.c", "gains.bpf.c", "caller.bpf.c", "acts.bpf.c", "file_acts.bpf.c")
_SYS_SETUID = 105  # x86-64
_log = logging.getLogger("krie")


class CfiConfig(PluginConfig):
    """Keys of `[plugins.cfi]`."""

    functions: Annotated[tuple[Symbol, ...], Field(max_length=MOST_CONFIGURED)] = Field(
        (), description="further functions to lock: a call from elsewhere than their callers is told"
    )
    acts: bool = Field(
        False, description="also judge rights again where acts are done that take one; ten programs more to verify"
    )


class Cfi:
    """What KRIe calls, see `krie.plugin.hookspecs`: one object an agent."""

    api = 1

    def __init__(self) -> None:
        self._lock: Live | None = None
        """What there is while the agent is armed."""

    @hookimpl
    def krie_config(self) -> type[PluginConfig]:
        """See `krie.plugin.hookspecs`."""
        return CfiConfig

    @hookimpl
    def krie_sensor(self, config: CfiConfig, features: Features) -> Sensor:
        """See `krie.plugin.hookspecs`. Raises `PluginError` where there are no kprobes at all."""
        if refused := features.refused.get(AttachType.KPROBE):
            raise PluginError(_NAME, f"can do nothing on this kernel: {refused}")
        declared = shipped().with_functions(config.functions)
        lock = _lock_of_this_build() if features.tried else None
        known = {name: _known(name, lock, declared) for name in declared.functions if features.tried}
        return Sensor(
            name=_NAME,
            version="1",
            probes=(
                *(_probe(name, each.number, known.get(name, "")) for name, each in declared.functions.items()),
                *(act.probes() if config.acts else ()),
            ),
            events=(Caller, Lock, Activity, act.Act),
            sources=tuple(map(files(__package__).joinpath, _SOURCES)),
            policies=files("krie.policies").joinpath(_NAME),
            defines=DEFINES,
            shared=SHARED,
        )

    @hookimpl
    def krie_attached(self, maps: Maps, memory: KernelMemory, config: CfiConfig) -> None:
        """See `krie.plugin.hookspecs`. Raises `KernelError` where the kernel's code cannot be read: then nothing is
        locked."""
        declared = shipped().with_functions(config.functions)
        self._lock = Live(maps, memory, declared, _lock_of_this_build(), config.functions)

    @hookimpl
    def krie_detaching(self) -> None:
        """See `krie.plugin.hookspecs`."""
        if self._lock is not None:
            self._lock.close()
        self._lock = None

    @hookimpl
    def krie_facts(self, kind: str) -> Mapping[str, Json] | None:
        """See `krie.plugin.hookspecs`."""
        return facts_schema() if kind == Caller.NAME else None

    @hookimpl
    def krie_enrich(self, event: Event) -> Mapping[str, Json] | None:
        """See `krie.plugin.hookspecs`."""
        return self._lock.facts(event) if isinstance(event, Caller) and self._lock is not None else None

    @hookimpl
    def krie_poll(self) -> Iterable[Event]:
        """See `krie.plugin.hookspecs`."""
        return self._lock.poll() if self._lock is not None else ()

    @hookimpl
    def krie_scan(self) -> Iterable[Event]:
        """See `krie.plugin.hookspecs`."""
        return self._lock.scan() if self._lock is not None else ()


def _become_whom_we_are() -> None:
    system_call(_SYS_SETUID, os.getuid())


def _lock_of_this_build() -> lock_file.LockFile | None:
    """Raises `ConfigError` where it does not follow the schema."""
    try:
        build_id = running_build_id()
    except ConfigError as error:
        _log.warning("plugin %s: %s; callers are derived only", _NAME, error)
        return None
    return lock_file.shipped(build_id)


def _known(function: str, lock: lock_file.LockFile | None, declared: Declaration) -> str:
    """What the lock rests on, in words."""
    if lock is None or (found := lock.functions.get(function)) is None:
        return "locked when its callers were derived, some seconds after the start: this build's lock file has none; "
    if all(each in declared.indirect for each in found.taken):
        return "locked to the callers in this build's lock file; "
    return "locked to the callers in this build's lock file, and to none that call it by a pointer: these are told; "


def _probe(function: str, number: int, known: str) -> Probe:
    check = f"{_NAME}_commit" if function == "commit_creds" else f"{_NAME}_check"
    alternative = Alternative(
        "kprobe",
        (_FAILED, Program(AttachType.KPROBE, function, check, argument=number)),
        fields=own_fields(Caller),
        can=frozenset({Enforcement.KILL}),
        limits=f"{known}does not see who enters it behind its begin, or forges a caller's return address"
        + ("" if function == "commit_creds" else "; no canary can prove it alive"),
    )
    canary = _become_whom_we_are if function == "commit_creds" else None
    return Probe(function.replace(".", "_").lower(), Caller, (alternative,), canary, optional=True)
