"""What syscall_table gives to KRIe: probes that take looks, rules, names for what they find."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.resources import files

from krie import (
    Alternative,
    AttachType,
    Check,
    Enforcement,
    Event,
    Features,
    Json,
    KernelError,
    KernelMemory,
    Maps,
    PluginConfig,
    Probe,
    Program,
    Sensor,
    hookimpl,
    own_fields,
)

from .code_watch import CodeWatch
from .config import SyscallTableConfig
from .control import SYMBOLS as CONTROL
from .derive import SYMBOLS
from .events import TRIGGERS, Activity, Code, Hook, Listed, Wrapped
from .handlers import CANARIES, Handler, handlers
from .kallsyms import Kallsyms
from .limits import SYMBOLS as LISTED
from .limits import limits
from .maps import DEFINES, SHARED
from .pointers import SHIPPED
from .registers import SYMBOLS as ENTRIES
from .watch import TRAMPOLINES, Watch

_NAME = "syscall_table"
_TICK_NS = "250000000"
"""How often each CPU's timer asks whether a look is due."""
_TRIGGER = {name: number for number, name in TRIGGERS.items()}
_SOURCES = ("places.bpf.c", "looks.bpf.c", "found.bpf.c", "wrapped.bpf.c")
_KILLS = frozenset({Enforcement.KILL})
_log = logging.getLogger("krie")
_OWNER = "`kernel`, the module, `bpf` and the like for code that these made; `?`: nobody's that is known"
_FACTS: Mapping[str, Mapping[str, str]] = {
    Hook.NAME: {
        "place": "symbol and offset of what differs",
        "syscall": "name of the system call, as its handler has it; empty where it is not known",
        "symbol": "what it leads to now; empty where that has no name",
        "was_symbol": "what it led to",
        "owner": f"whose code it leads to: {_OWNER}",
        "explained": "handler, entry, dispatch: a legal cause that the kernel lists, `kprobe` or `ftrace`",
        "bytes_was": "up to 16 bytes from the first one that differs, as they were at start",
        "bytes_now": "the same as they are now",
    },
    Wrapped.NAME: {
        "symbol": "the handler",
        "return_symbol": "function and offset of `return_address`; empty where it has no name",
        "owner": f"whose code called it: {_OWNER}",
        "syscall": "name of the system call, as its handler has it",
    },
}


class SyscallTable:
    """What KRIe calls, see `krie.plugin.hookspecs`: one object an agent."""

    api = 1

    def __init__(self) -> None:
        self._symbols: Kallsyms | None = None
        """Read for the sensor, and kept until the baseline is taken with them."""
        self._watch: Watch | None = None
        self._code: CodeWatch | None = None

    @hookimpl
    def krie_config(self) -> type[PluginConfig]:
        """See `krie.plugin.hookspecs`."""
        return SyscallTableConfig

    @hookimpl
    def krie_sensor(self, config: SyscallTableConfig, features: Features) -> Sensor:
        """See `krie.plugin.hookspecs`."""
        self._symbols = _read_symbols(config) if features.tried else None
        return Sensor(
            name=_NAME,
            version="1",
            probes=(
                _timer(config, self._symbols),
                *_modules(),
                _text_poke(),
                _set_memory(),
                *_alias(config),
                *_wrapped(config),
            ),
            events=(Hook, Code, Wrapped, Activity, Listed),
            sources=tuple(files(__package__).joinpath(each) for each in _SOURCES),
            policies=files("krie.policies").joinpath(_NAME),
            defines=DEFINES,
            shared=SHARED,
        )

    @hookimpl
    def krie_attached(self, maps: Maps, memory: KernelMemory, config: SyscallTableConfig) -> None:
        """See `krie.plugin.hookspecs`."""
        symbols = self._symbols or _read_symbols(config)
        self._symbols = None  # 5 to 15 MB
        self._watch = Watch(maps, memory, symbols, config, tuple(handlers(config.wrapped)))
        self._code = CodeWatch(memory) if config.code else None
        for each in self._watch.unknown:
            _log.warning("plugin %s does not look at what this kernel does not tell: %s", _NAME, each)

    @hookimpl
    def krie_detaching(self) -> None:
        """See `krie.plugin.hookspecs`."""
        self._watch = None
        code, self._code = self._code, None
        if code is not None:
            code.close()

    @hookimpl
    def krie_facts(self, kind: str) -> Mapping[str, Json] | None:
        """See `krie.plugin.hookspecs`."""
        texts = _FACTS.get(kind)
        return {name: {"type": "string", "description": text} for name, text in texts.items()} if texts else None

    @hookimpl
    def krie_enrich(self, event: Event) -> Mapping[str, Json] | None:
        """See `krie.plugin.hookspecs`."""
        if not isinstance(event, Hook | Wrapped) or self._watch is None:
            return None
        if self._code is not None:  # who changed one place may have changed others
            self._code.ask()
        return self._watch.facts(event)

    @hookimpl
    def krie_scan(self) -> Iterable[Event]:
        """See `krie.plugin.hookspecs`."""
        if self._code is not None:
            self._code.ask()
        return self._watch.scan(self._code) if self._watch is not None else ()

    @hookimpl
    def krie_poll(self) -> Iterable[Event]:
        """See `krie.plugin.hookspecs`."""
        return self._code.poll() if self._code is not None else ()

    @hookimpl
    def krie_integrity(self, memory: KernelMemory, progress: Callable[[str], None]) -> Iterable[Check]:
        """See `krie.plugin.hookspecs`."""
        from . import entries, functions, module_text, passages, text  # noqa: PLC0415 - the agent does not need them

        return (
            *_looked("system calls", passages.check(memory, progress)),
            *_looked("lists of functions", functions.check(memory, progress)),
            *_looked("registers", entries.check(memory)),
            *_looked("text", text.check(memory, progress), needed=True),
            *_looked("modules", module_text.check(memory, progress)),
        )


def _looked(name: str, checks: Iterable[Check], *, needed: bool = False) -> Iterator[Check]:
    """What cannot be looked at takes nothing else along."""
    try:
        yield from checks
    except (KernelError, OSError) as error:
        yield Check(name, not_looked_at=(f"{name}: {error}",), needed=needed)


def _read_symbols(config: SyscallTableConfig) -> Kallsyms:
    trampolines = (name for names in TRAMPOLINES for name in names)
    registers = (*ENTRIES, *CONTROL)
    return Kallsyms((*SYMBOLS, *LISTED, *SHIPPED, *config.pointers, *trampolines, *registers))


def _timer(config: SyscallTableConfig, symbols: Kallsyms | None) -> Probe:
    programs = _looks(AttachType.PERF_EVENT, _TICK_NS, "time")
    at_time = Program(AttachType.PERF_EVENT, _TICK_NS, f"{_NAME}_at_time", proven=False)
    by_time = Alternative(
        str(at_time.attach),
        (*programs, at_time),
        fields=own_fields(Hook),
        bystander=True,
        limits=limits(config, symbols),
    )
    return Probe("timer", Hook, (by_time,))


def _modules() -> Iterable[Probe]:
    for trigger, tracepoint in (
        ("module_init", "initcall_finish"),
        ("module_load", "module_load"),
        ("module_free", "module_free"),
    ):
        at_tracepoint = Program(
            AttachType.RAW_TRACEPOINT,
            tracepoint,
            f"{_NAME}_at_tracepoint",
            argument=_TRIGGER[trigger],
            proven=False,
        )
        programs = (*_looks(AttachType.RAW_TRACEPOINT, "initcall_finish", "tracepoint"), at_tracepoint)
        yield Probe(trigger, Hook, (_alternative(programs, "no canary can prove it alive"),), optional=True)


def _text_poke() -> Probe:
    # What patches code: for one place; for many, by its names until and since 6.16; what it is called by for kprobes.
    functions = ("text_poke", "text_poke_bp_batch", "smp_text_poke_batch_finish")
    limits = "sees what is patched by these functions; who writes by another way is seen by the next look"
    return _at_return("text_poke", functions, limits)


def _set_memory() -> Probe:
    return _at_return("set_memory", ("set_memory_rw", "set_memory_x", "set_memory_rox"), "no canary can prove it alive")


def _alias(config: SyscallTableConfig) -> Iterable[Probe]:
    if config.alias_mappings:
        yield _at_return(
            "alias", ("vunmap",), "sees a mapping when it is removed; one that stays is seen by the next look"
        )


def _at_return(trigger: str, functions: Iterable[str], limits: str) -> Probe:
    places = tuple(
        Program(
            AttachType.KRETPROBE,
            function,
            f"{_NAME}_at_return",
            argument=_TRIGGER[trigger] | index << 8,
            proven=False,
            optional=index > 0,
        )
        for index, function in enumerate(functions)
    )
    programs = (*_looks(AttachType.KRETPROBE, "vunmap", "return"), *places)
    return Probe(trigger, Hook, (_alternative(programs, limits),), optional=True)


def _looks(attach: AttachType, target: str, way: str) -> tuple[Program, ...]:
    """What every look of this kind goes on to."""
    where = {"time": "timer"}.get(way, way)
    return (
        Program(attach, target, f"{_NAME}_look_{way}", through=f"{_NAME}_{where}_look", proven=False),
        Program(attach, target, f"{_NAME}_tell_{way}", through=f"{_NAME}_{where}_tell", proven=False),
    )


def _alternative(programs: tuple[Program, ...], limits: str, event: type[Event] = Hook) -> Alternative:
    return Alternative(str(programs[-1].attach), programs, fields=own_fields(event), can=_KILLS, limits=limits)


def _wrapped(config: SyscallTableConfig) -> Iterable[Probe]:
    all_handlers = tuple(handlers(config.wrapped))
    for call in dict.fromkeys(config.wrapped):
        programs = tuple(_entered(each) for each in all_handlers if each.call == call)
        limits = "does not see who replaces a handler without calling it, or jumps to it as the last thing"
        canary = CANARIES.get(call)
        alternative = _alternative(programs, limits, event=Wrapped)
        yield Probe(f"wrapped_{call}", Wrapped, (alternative,), canary, optional=True)


def _entered(handler: Handler) -> Program:
    proven = handler.call in CANARIES and handler.function.startswith("__x64_")
    return Program(
        AttachType.KPROBE,
        handler.function,
        f"{_NAME}_entered",
        argument=handler.index,
        proven=proven,
        optional=True,
    )
