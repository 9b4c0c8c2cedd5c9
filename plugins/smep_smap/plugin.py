"""What smep_smap gives to KRIe: a probe at each watched function, traps inside of them, rules, names of addresses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Annotated, Literal

from krie import (
    Alternative,
    AttachType,
    Enforcement,
    Event,
    Features,
    Json,
    Maps,
    PluginConfig,
    PluginError,
    Probe,
    Program,
    Sensor,
    Trap,
    constants,
    hookimpl,
    own_fields,
)
from pydantic import Field, StringConstraints

from .baseline import Baseline
from .events import Activity, LostTrap, RegisterCheck
from .functions import MOST_CONFIGURED, PROCESS, Function, probed
from .maps import Argument, Count, Kernel

_NAME = "smep_smap"
_CHECK = f"{_NAME}_check"
_FAILED = Program(AttachType.KPROBE, "commit_creds", f"{_NAME}_failed", through=f"{_NAME}_failing", proven=False)
"""What all checks go on to where something is wrong."""
_VARIANTS = ("", ".isra.0", ".constprop.0", ".part.0")
"""What compilers append to the names of functions that they changed."""
_NEAR, _FAR = 64, 4096
"""How far behind a function's begin its traps are drawn: where all pass who enter it near there, and anywhere."""
_FIELDS = own_fields(RegisterCheck)
"""What each of the programs fills."""
_Symbol = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$", max_length=63)]
_log = logging.getLogger("krie")


class SmepSmapConfig(PluginConfig):
    """Keys of `[plugins.smep_smap]`."""

    functions: Annotated[dict[_Symbol, Literal["process", "any"]], Field(max_length=MOST_CONFIGURED)] = Field(
        {}, description="further functions to watch, each with the context that it runs in: `process` or `any`"
    )
    traps: bool = Field(True, description="also set traps at calls and jumps inside the functions, drawn at random")
    kernel_stack: bool = Field(False, description="add the kernel's stack to events")


class SmepSmap:
    """What KRIe calls, see `krie.plugin.hookspecs`: one object an agent."""

    api = 1

    def __init__(self) -> None:
        self._baseline: Baseline | None = None
        """What there is while the agent is armed."""

    @hookimpl
    def krie_config(self) -> type[PluginConfig]:
        """See `krie.plugin.hookspecs`."""
        return SmepSmapConfig

    @hookimpl
    def krie_sensor(self, config: SmepSmapConfig, features: Features) -> Sensor:
        """See `krie.plugin.hookspecs`. Raises `PluginError` where there are no kprobes at all."""
        if refused := features.refused.get(AttachType.KPROBE):
            raise PluginError(_NAME, f"can do nothing on this kernel: {refused}")
        functions = probed(config.functions)
        traps = [probe for each in functions for probe in _traps(each)] if config.traps else []
        return Sensor(
            name=_NAME,
            version="1",
            probes=(*map(_entry, functions), *traps),
            events=(RegisterCheck, LostTrap, Activity),
            sources=(files(__package__).joinpath("register_check.bpf.c"),),
            policies=files("krie.policies").joinpath(_NAME),
            types=("thread_union",),
            defines=constants("SMEP_SMAP", Argument),
            shared=(Kernel, Count),
        )

    @hookimpl
    def krie_attached(self, maps: Maps, traps: Callable[[], Sequence[Trap]], config: SmepSmapConfig) -> None:
        """See `krie.plugin.hookspecs`."""
        self._baseline = Baseline(maps, traps, kernel_stack=config.kernel_stack)
        for each in self._baseline.unknown:
            _log.warning("plugin %s does not know %s, and does not check it", _NAME, each)

    @hookimpl
    def krie_detaching(self) -> None:
        """See `krie.plugin.hookspecs`."""
        self._baseline = None

    @hookimpl
    def krie_facts(self, kind: str) -> Mapping[str, Json] | None:
        """See `krie.plugin.hookspecs`."""
        if kind != RegisterCheck.NAME:
            return None
        texts = {
            "symbol": "function and offset of `ip`",
            "return_symbol": "the same of `return_address`; empty where it is in no code of the kernel",
            "return_module": "the module that it is in; `bpf` and `ftrace` for code that these made, empty for the "
            "kernel",
        }
        stack: Json = {
            "type": "array",
            "items": {"type": "string"},
            "description": "functions and offsets of `kernel_stack`",
        }
        return {
            **{name: {"type": "string", "description": text} for name, text in texts.items()},
            "stack_symbols": stack,
        }

    @hookimpl
    def krie_enrich(self, event: Event) -> Mapping[str, Json] | None:
        """See `krie.plugin.hookspecs`."""
        if not isinstance(event, RegisterCheck) or self._baseline is None:
            return None
        return self._baseline.facts(event)

    @hookimpl
    def krie_scan(self) -> Iterable[Event]:
        """See `krie.plugin.hookspecs`."""
        return self._baseline.scan() if self._baseline is not None else ()


def _entry(function: Function) -> Probe:
    alternatives = tuple(
        _alternative(
            variant.strip(".").partition(".")[0] or str(AttachType.KPROBE),
            Program(AttachType.KPROBE, f"{function.name}{variant}", _CHECK, argument=_argument(function, variant)),
            "does not see who jumps to an instruction behind the function's begin"
            + ("; no canary can prove it alive" if function.canary is None else ""),
        )
        for variant in _VARIANTS
    )
    return Probe(_probe_name(function), RegisterCheck, alternatives, function.canary, optional=True)


def _traps(function: Function) -> Iterable[Probe]:
    for kind, reach, which in (("near", _NEAR, 0), ("far", _FAR, Argument.SECOND)) if not function.busy else ():
        argument = _argument(function, "trap") | Argument.TRAP | which
        alternative = _alternative(
            "kprobe",
            Program(AttachType.KPROBE, function.name, _CHECK, argument=argument, roaming=reach),
            f"checks the stack only, at a call or jump among the first {reach} bytes; no canary can prove it alive",
        )
        yield Probe(f"{_probe_name(function)}_{kind}", RegisterCheck, (alternative,), optional=True)


def _alternative(name: str, program: Program, limits: str) -> Alternative:
    return Alternative(name, (_FAILED, program), fields=_FIELDS, can=frozenset({Enforcement.KILL}), limits=limits)


def _argument(function: Function, variant: str) -> int:
    """Compilers change what a function is given, so only under its own name its arguments are known."""
    credentials = function.name == "commit_creds" and not variant
    return (
        function.number
        | (Argument.OWN_STACK if function.context == PROCESS else 0)
        | (Argument.CREDENTIALS if credentials else 0)
    )


def _probe_name(function: Function) -> str:
    return function.name.replace(".", "_").lower()
