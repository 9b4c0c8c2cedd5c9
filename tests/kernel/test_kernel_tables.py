"""The look-up by the very BPF code that probes run: it equals the engine, and no event sees two generations mixed."""

import gc
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from krie.agent.loading import load_sensors
from krie.config import AgentConfig, Config
from krie.events.event import EventType
from krie.kernel.features import Features
from krie.kernel.ring import Ring
from krie.plugin.contract import joined
from krie.plugin.probe import Sensor
from krie.plugins.runtime_integrity.config import RuntimeIntegrityConfig
from krie.plugins.runtime_integrity.plugin import RuntimeIntegrity
from krie.plugins.runtime_integrity.sysctl_write import SysctlWrite
from krie.policy.embedded import EmbeddedEngine
from krie.policy.sources import PolicyFile, PolicySources
from krie.testing.needs import compiled_dir
from krie.tier.domain import Numbers
from krie.tier.kernel_tables import KernelTables
from krie.tier.placement import find_tiers
from krie.tier.subject import Subject
from krie.tier.table_bytes import Encoder
from krie.tier.trial import Trial
from krie.tier.verify import verify

from ..policy.sample import KIND, Sample
from ..policy.subjects import ACTIONS, RULE, subject
from ..policy.test_verify import shipped

FLIPS = 2000
SOURCE = "/* no program of its own */\n"


@pytest.fixture(autouse=True)
def engines_end_before_other_threads_start() -> Iterator[None]:
    """See `engines_end_in_their_thread`; here threads run in the same module."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    source = tmp_path_factory.mktemp("trial") / "sample.bpf.c"
    source.write_text(SOURCE)
    sample = Sensor("sample", "1", events=(Sample,), sources=(source,))
    with ExitStack() as stack:
        yield Trial(
            [joined(RuntimeIntegrity().krie_sensor(RuntimeIntegrityConfig(), Features())), sample],
            AgentConfig(loader_timeout_s=600, compiled_dir=compiled_dir()),
            stack,
        )


def looked_up(trial: Trial, made: Subject, events: int) -> int:
    """Verify by the kernel; returns for how many records a rule fired."""
    trial.install(made.tables(), made.numbers)
    found = verify(made, {"the kernel": trial.look_up}, events=events)
    assert not found.disagreements, found.disagreements[0].as_rego(frozenset())
    return sum(found.decided.values())


@pytest.mark.long
@settings(max_examples=15)
@given(rules=st.lists(st.tuples(ACTIONS, RULE), min_size=1, max_size=4))
def test_any_policy(trial: Trial, rules: list[tuple[str, list[str]]]) -> None:
    made = subject(*((f"R{number}", action, body) for number, (action, body) in enumerate(rules)))
    looked_up(trial, made, 40)


def test_shipped_rules(trial: Trial) -> None:
    assert looked_up(trial, shipped(), 600) > 40


def test_many_constants(trial: Trial) -> None:
    many = {"many": [1000003 * number % (1 << 32) for number in range(1500)], "few": list(range(0, 1000, 3))}
    made = subject(("MANY", "kill", ["input.process.uid in data.many", "input.event.number in data.few"]), data=many)
    assert looked_up(trial, made, 400) > 10


def test_two_generations_are_never_mixed(trial: Trial) -> None:
    """Two policies that use other fields, other numbers of text, other rows, flipped as fast as the kernel allows."""
    one = subject(
        ("ONE", "override", ['input.event.name == "kernel/a"', "input.event.number > 5", "input.process.uid == 5"])
    )
    two = subject(("TWO", "override", ["input.process.gid == 6", 'input.event.name in {"kernel/a", "kernel/b"}']))
    raw = bytearray(KIND.layout.size)
    for name, value in (("number", (9).to_bytes(8, "little")), ("uid", b"\5"), ("gid", b"\6"), ("name", b"kernel/a")):
        place = next(each for each in KIND.layout.fields if each.name == name)
        raw[place.offset : place.offset + len(value)] = value
    numbers = [made.numbers.following({}) for made in (one, two)]
    stop, seen, wrong = threading.Event(), [0, 0], list[tuple[int, int]]()

    def look() -> None:
        while not stop.is_set():
            rule, generation = trial.look_up(KIND, bytes(raw))
            wanted = (11, 22)[generation % 2]
            seen[generation % 2] += 1
            if rule != wanted:
                wrong.append((rule, generation))

    def install(generation: int) -> None:
        made, rule = ((one, 11), (two, 22))[generation % 2]
        encoder = Encoder(generation, lambda _: rule, 0)
        trial.install({KIND.kind: encoder.encode(made.tiers.tables[KIND.name])}, numbers[generation % 2])

    install(2)
    reader = threading.Thread(target=look)
    reader.start()
    started = time.monotonic()
    for generation in count(3):
        install(generation)
        enough = generation > FLIPS or (generation > 100 and time.monotonic() - started > 15)
        if (enough and min(seen) > 100) or not reader.is_alive():
            break  # fewer where the machine is emulated, and more where the reader hardly ever gets a CPU
    stop.set()
    reader.join()
    print(f"{generation - 2} flips, {sum(seen)} look-ups")
    assert not wrong
    assert min(seen) > 100


WRITER = """
import os, sys
file = os.open('/proc/sys/kernel/printk_ratelimit_burst', os.O_WRONLY)
refused = 0
while os.read(0, 1):
    os.write(1, b".")
    for _ in range(100):
        try:
            os.pwrite(file, b'77777', 0)
        except OSError:
            refused += 1
print(refused)
"""
"""Writes 100 times for each byte that it gets and answers."""
AHEAD = 100
"""So many bytes it is behind at most: what it writes for them fits into the ring, however rarely that is read."""


@pytest.mark.once
@pytest.mark.needs("cgroup_sysctl")
def test_a_probe_under_load_loses_nothing_and_mixes_nothing() -> None:
    """Both policies refuse one number, each by fields of its own; meanwhile they replace each other."""
    head = 'rules contains {"id": "R", "action": "override"} if {\n\tinput.event.kind == "%s"\n\t%s\n}'
    one = ["input.event.new_int == 77777", 'input.event.name == "kernel/printk_ratelimit_burst"']
    two = ["input.event.new_int > 77776", "input.event.new_int < 77778", "input.process.euid == 0"]
    made = []
    for body in (one, two):
        text = "package krie.load\n\n" + head % (SysctlWrite.NAME, "\n\t".join(body))
        engine = EmbeddedEngine(PolicySources((PolicyFile("load.rego", text),), {}, ""))
        numbers = Numbers()
        found = find_tiers(engine, [EventType(SysctlWrite)], numbers, lambda kind, rule: "")
        made.append((found.tables[SysctlWrite.NAME], numbers))
    config = Config.model_validate(
        {"agent": {"ring_mib": 64, "compiled_dir": compiled_dir()}, "plugins": {"runtime_integrity": {}}}
    )
    with ExitStack() as stack:
        armed = load_sensors(config, "test", lambda fault: pytest.fail(fault.error), stack, contain=False)
        armed.arm()
        ring = Ring(armed.maps["krie_ring"])
        stack.callback(ring.close)
        tables = KernelTables(armed.maps, armed.loaded.loaded.kinds)
        seen = Counter[tuple[int, int, int]]()

        def look() -> None:
            while records := ring.read():
                events = (each for each in map(armed.types.decode, records) if isinstance(each, SysctlWrite))
                seen.update((each.generation % 2, each.verdict, each.done) for each in events if each.new_int == 77777)

        def install() -> None:
            generation = tables.next_generation()
            table, numbers = made[generation % 2]
            encoder = Encoder(generation, lambda _: 11 + generation % 2, 0)
            tables.install({SysctlWrite.KIND: encoder.encode(table)}, numbers)

        install()
        # A grandchild, since children of whoever armed the probes are their canaries.
        command = ["/bin/sh", "-c", 'exec 3<&0; "$@" <&3 & wait', "sh", sys.executable, "-IS", "-c", WRITER]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdin is not None
            assert writer.stdout is not None
            for number in range(FLIPS):
                writer.stdin.write(".")
                writer.stdin.flush()
                if number >= AHEAD:
                    writer.stdout.read(1)
                install()
                look()
            refused = int(writer.communicate()[0].strip("."))
        look()
    assert seen.total() == refused == 100 * FLIPS
    assert seen.keys() == {(0, 11, 1), (1, 12, 1)}
