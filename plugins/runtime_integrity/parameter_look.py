"""Looks of the kernel side at the kernel's variables: what is put back between two scans is seen, too."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from krie import (
    U32,
    U64,
    WORD,
    Alternative,
    AttachType,
    Choice,
    Doc,
    Event,
    Hex64,
    Json,
    KernelMemory,
    Maps,
    Pad2,
    Probe,
    Program,
    own_fields,
)

from .config import RuntimeIntegrityConfig
from .expected_words import MOST_WORDS, Expected, Told, Word, words
from .topic import PREFIX, Topic
from .watched import Watched

_log = logging.getLogger("krie")
_TICK_NS = "250000000"
"""How often each CPU's timer asks whether a look is due."""
STATES = {1: "differs", 2: "agrees"}
TRIGGERS = {1: "timer", 2: "module", 3: "exec"}


@dataclass(frozen=True, slots=True)
class ParameterLook(Event):
    """A check in the kernel found a variable changed, or restored.

    Made about every second, at random times, and when a module is loaded or a set-uid or set-gid program is executed.
    `process` is whoever ran: with `timer` anybody. What stays is told by the next scan, too (`kernel_parameter`).
    """

    KIND: ClassVar[int] = 0x010D
    NAME: ClassVar[str] = "runtime_integrity.parameter_look"

    address: Annotated[Hex64, Doc("the word that was compared")]
    value: Annotated[U64, Doc("what it holds, of its bits that count")]
    word: Annotated[U32, Doc("the agent's number of it")]
    state: Annotated[str, Choice("B", STATES), Doc("`agrees`: again")]
    trigger: Annotated[str, Choice("B", TRIGGERS), Doc("what the look was taken for")]
    pad: Pad2 = b""


_FACTS: Mapping[str, Json] = {
    name: {"type": "string", "description": text}
    for name, text in {
        "symbol": "the variable; `variable.field` for a field",
        "interface": "the file by which the kernel lets it be set; empty for none",
        "expected": "what it should be, in words: `0`, `at least 1`, a text, bytes",
        "found": "what it is: a number; of text and bytes, those of the word, in hexadecimal",
    }.items()
}


@dataclass(slots=True)
class _Looks:
    """The words of this start."""

    watched: Mapping[str, Watched]
    words: tuple[Word, ...] = field(default=())

    def attach(self, maps: Maps, _memory: KernelMemory, _config: RuntimeIntegrityConfig) -> None:
        """Tell the programs what is expected. Raises `KernelError`."""
        made = tuple(words(self.watched.values()))
        self.words = made[: MOST_WORDS - 1]
        if len(made) > len(self.words):
            left = len(made) - len(self.words)
            _log.warning("%d words of kernel parameters have no room: scans alone compare them", left)
        table = maps[Expected.C_NAME]
        for index, word in enumerate(self.words):
            table.set(WORD.encode(index), word.expected.encode())

    def enrich(self, event: Event) -> Mapping[str, Json] | None:
        """Which variable it is."""
        if not isinstance(event, ParameterLook) or event.word >= len(self.words):
            return None
        word = self.words[event.word]
        one = word.watched
        raw = event.value.to_bytes(8, "little")[: word.expected.length]
        number = one.parameter.form == "number"
        return {
            "symbol": one.parameter.name,
            "interface": one.parameter.interface,
            "expected": one.expectation() or one.start[word.offset :][: word.expected.length].hex(),
            "found": str(int.from_bytes(raw, "little", signed=one.parameter.signed)) if number else raw.hex(),
        }


def topic(watched: Mapping[str, Watched]) -> Topic:
    """Looks at these variables, which are known by the time the programs are attached."""
    looks = _Looks(watched)
    return Topic(
        ParameterLook,
        tuple(_probes()),
        ("parameter_look.bpf.c",),
        facts=_FACTS,
        enrich=looks.enrich,
        attach=looks.attach,
        defines={"RUNTIME_INTEGRITY_EXPECTED": MOST_WORDS},
        shared=(Expected, Told),
    )


def _probes() -> Iterable[Probe]:
    # No canary can change a variable without harm, nor load a module.
    timer = Program(AttachType.PERF_EVENT, _TICK_NS, f"{PREFIX}_look_timer", proven=False)
    executed = Program(AttachType.RAW_TRACEPOINT, "sched_process_exec", f"{PREFIX}_look_exec", proven=False)
    where_there_are_any = Program(
        AttachType.RAW_TRACEPOINT, "module_load", f"{PREFIX}_look_module", proven=False, optional=True
    )
    look = Program(
        AttachType.RAW_TRACEPOINT,
        "sched_process_exec",
        f"{PREFIX}_look_then",
        through=f"{PREFIX}_look_program",
        proven=False,
    )
    for name, programs in (("look_timer", (timer,)), ("look_moment", (look, executed, where_there_are_any))):
        limits = "what is changed and put back between two looks is not seen"
        alternative = Alternative(str(programs[0].attach), programs, fields=own_fields(ParameterLook), limits=limits)
        yield Probe(name, ParameterLook, (alternative,))
