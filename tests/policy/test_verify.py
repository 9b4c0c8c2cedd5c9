"""The shipped rules: which of them the kernel decides, and that it decides what Rego says."""

from importlib.resources import files
from random import Random

from krie.events.event import EventType
from krie.events.identity import Identity
from krie.kernel.features import Features
from krie.plugin.contract import joined
from krie.plugins.runtime_integrity.config import RuntimeIntegrityConfig
from krie.plugins.runtime_integrity.plugin import RuntimeIntegrity
from krie.policy.embedded import EmbeddedEngine
from krie.policy.sources import read_sources
from krie.tier.domain import Numbers
from krie.tier.draw import Records
from krie.tier.placement import find_tiers
from krie.tier.subject import GENERATION, Subject
from krie.tier.verify import python_look_up, verify

from .sample import KIND
from .subjects import PLANTED, subject

IN_KERNEL = {
    "BPF002",
    "BPF007",
    "BPF008",
    "CRED001",
    "HELPER001",
    "HELPER002",
    "HELPER003",
    "MODULE001",
    "MODULE002",
    "MODULE004",
    "MODULE008",
    "PERF002",
    "PTRACE001",
    "PTRACE002",
    "SYSCTL001",
    "SYSCTL002",
}


def shipped() -> Subject:
    """With an executable that has a name, and with one that two files have."""
    folder = files("krie.policies").joinpath("runtime_integrity")
    engine = EmbeddedEngine(read_sources([folder], {"executables": {"apt": "/usr/bin/apt", "dpkg": "/usr/bin/dpkg"}}))
    sensor = joined(RuntimeIntegrity().krie_sensor(RuntimeIntegrityConfig(), Features()))
    sent = {probe.event for probe in sensor.probes}  # by programs, not by comparisons
    types = [EventType(each) for each in sensor.events if each in sent]
    numbers = Numbers().following({Identity(1, 2, 3): "apt", Identity(1, 2, 4): "apt", Identity(1, 3, 3): "dpkg"})
    return Subject(engine, find_tiers(engine, types, numbers, lambda kind, rule: ""), numbers, types)


def test_what_acts_and_can_be_is_decided_in_the_kernel() -> None:
    made = shipped()
    acts = {rule.id for rule in made.engine.rules if rule.action != "log"}
    assert {each.rule.id for each in made.tiers.placements if not each.why} == IN_KERNEL
    # The one is about the target's executable, which a program does not know, the other about what comparisons find.
    assert acts - IN_KERNEL == {"PTRACE004", "KPARAM001"}


def test_a_disagreement_is_shrunk_to_what_shows_it() -> None:
    made = subject(*PLANTED)
    nothing = verify(made, {"it": lambda kind, raw: (0, GENERATION)}, events=1000)
    (found,) = nothing.disagreements
    assert (found.engine, found.table) == ("EVEN", "")
    assert found.document["event"] == {
        "kind": "sample.seen",
        "number": 10,
        "free": 0,
        "flags": [],
        "command": "load",
        "known": False,
        "name": "",
        "padding": "",
    }
    assert set(found.document["process"].values()) == {0, ""}


def test_what_became_needless_by_a_later_part_is_taken_away_too() -> None:
    made = Records(subject(*PLANTED), KIND)
    random = Random(5)
    parts = next(each for each in iter(lambda: made.draw(random), None) if any(each[0]) and any(each[1]))
    smallest = made.shrunk(parts, lambda fewer: any(fewer[0]) or not any(fewer[1]))
    assert not any(map(any, smallest))


def test_another_seed_draws_other_records_and_the_same_the_same() -> None:
    made = subject(*PLANTED)

    def drawn(seed: int) -> list[bytes]:
        seen: list[bytes] = []
        look_up = python_look_up(made, made.tables())

        def look(kind: EventType, raw: bytes) -> tuple[int, int]:
            seen.append(raw)
            return look_up(kind, raw)

        verify(made, {"it": look}, events=200, start=seed)
        return seen

    first, other = drawn(0), drawn(1)
    assert drawn(0) == first != other
    assert len(set(first)) > 190


def test_tables_say_what_rego_says() -> None:
    made = shipped()
    found = verify(made, {"the table": python_look_up(made, made.tables())}, events=12_000)
    assert not found.disagreements, found.disagreements[0].as_rego(frozenset(IN_KERNEL))
    decided = {kind for each in made.tiers.placements if not each.why for kind in each.rule.kinds}
    assert all(found.decided[kind] > 80 for kind in decided), found.decided
