"""What names a compiled unit: sources and the kernel's types, and nothing else of a machine or a configuration."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from krie.agent.loading import unit_requests
from krie.config import Config
from krie.enforce.guard_sensor import enforcing_sensors
from krie.kernel.btf import Btf
from krie.kernel.features import Features
from krie.kernel.program import AttachType
from krie.loader.messages import Request, SensorRequest
from krie.loader.request import sensor_request
from krie.loader.source import CFile, Unit, assemble
from krie.plugin.manager import Plugins
from krie.processes.sensor import process_sensor

from ..btf_file import UNION, BtfFile

ALL: dict[str, Any] = {"runtime_integrity": {}, "smep_smap": {}}
HELPERS = [("BPF_FUNC_unspec", 0), ("BPF_FUNC_for_each_map_elem", 164)]


def kernel(
    file: Path,
    *,
    before: int = 0,
    tgid: str = "tgid",
    state: int = 8,
    inner: int = 16,
    behind: int = 8,
    field: str = "uid",
    number: int = 2,
    helpers: Iterable[tuple[str, int]] = HELPERS,
    list_: str = "list_head",
    array: int = 4,
) -> Btf:
    """A kernel with a task_struct, and everything else as small as can be."""
    made = BtfFile()
    for index in range(before):
        made.struct(f"other{index}", 8, [])
    int_ = made.integer("int")
    long_ = made.integer("long unsigned int", 8)
    cred = made.struct("cred", behind, [(field, int_, 0)])
    head = made.struct(list_, 16, [("next", made.pointer(long_), 0)])
    union = made.struct("", 8, [("a", int_, 0), ("b", long_, 0)], UNION)
    handler = made.pointer(made.prototype(int_, made.pointer(cred)))
    state_type = made.typedef("state_t", made.enum("state", [("RUNS", 1), ("SLEEPS", number)]))
    made.struct(
        "task_struct",
        128,
        [
            (tgid, int_, 0),
            ("state", state_type, state),
            ("list", head, inner),
            ("cred", made.pointer(cred), 40),
            ("handler", handler, 48),
            ("", union, 56),
            ("names", made.array(int_, array, int_), 64),
        ],
    )
    made.enum("bpf_func_id", helpers)
    return Btf(str(made.write(file)))


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Btf]:
    return lambda **changes: kernel(tmp_path / "btf", **changes)


def digest(btf: Btf) -> str:
    return btf.digest(["task_struct"])


def test_a_slice_is_the_same_where_only_other_types_differ(make: Callable[..., Btf]) -> None:
    same = digest(make())
    assert digest(make(before=7)) == same, "ids do not matter"
    assert digest(make(behind=16, field="euid")) == same, "nor what is only pointed at"
    assert digest(make(helpers=[])) == same, "nor what nobody asked for"


@pytest.mark.parametrize(
    "change",
    [{"tgid": "pid"}, {"state": 12}, {"inner": 24}, {"number": 3}, {"list_": "hlist_head"}, {"array": 5}],
    ids=str,
)
def test_a_slice_is_another_where_a_type_is(make: Callable[..., Btf], change: dict[str, Any]) -> None:
    assert digest(make(**change)) != digest(make())


def test_a_type_that_is_asked_for_counts_though_it_is_only_pointed_at(make: Callable[..., Btf]) -> None:
    digests = {make(behind=size).digest(["task_struct", "cred"]) for size in (8, 16)}
    assert len(digests) == 2
    assert make().digest(["task_struct", "none"]) == digest(make())


def test_a_type_of_the_compilers_own_does_not_count(make: Callable[..., Btf]) -> None:
    digests = {make(number=number).digest(["task_struct"], without=["state"]) for number in (2, 3)}
    assert len(digests) == 1


def requests(plugins: dict[str, Any] = ALL, features: Features = Features()) -> tuple[SensorRequest, ...]:  # noqa: B008
    loaded = Plugins.load(Config(plugins=plugins), "test", features, lambda fault: pytest.fail(str(fault)))
    sensors = (process_sensor(), *enforcing_sensors(), *loaded.sensors)
    return tuple(sensor_request(each) for each in sensors if each.sources)


def unit(btf: Btf, asked: tuple[SensorRequest, ...], **how: Any) -> Unit:
    request = Request(asked, 16, allow_every_syscall=False)
    return assemble(map(request.source, request.sensors), btf, **how)


def key(btf: Btf, asked: tuple[SensorRequest, ...], **how: Any) -> str:
    return unit(btf, asked, **how).key(btf, ["-a"])


@pytest.mark.parametrize(
    "plugins",
    [
        {"smep_smap": {}, "runtime_integrity": {}},
        {**ALL, "smep_smap": {"traps": False}},
        {**ALL, "smep_smap": {"functions": {"vfs_read": "process", "tcp_ack": "any"}}},
        {**ALL, "smep_smap": {"kernel_stack": True}},
        {**ALL, "runtime_integrity": {"map_access": True}},
        {name: {"mode": "enforce", "required": True} for name in ALL},
    ],
    ids=str,
)
def test_configurations_share_a_key(make: Callable[..., Btf], plugins: dict[str, Any]) -> None:
    btf = make()
    assert key(btf, requests(plugins)) == key(btf, requests())


def test_what_the_kernel_refuses_does_not_matter(make: Callable[..., Btf]) -> None:
    btf = make()
    for each in set(AttachType) - {AttachType.KPROBE}:  # without which smep_smap does not come at all
        assert key(btf, requests(features=Features("6.1", "x86_64", {each: "no"}, tried=True))) == key(btf, requests())


def test_which_alternatives_there_are_does_not_matter(make: Callable[..., Btf]) -> None:
    btf = make()
    fewer = tuple(
        replace(each, probes=tuple(replace(probe, alternatives=probe.alternatives[:1]) for probe in each.probes))
        for each in requests()
    )
    assert key(btf, fewer) == key(btf, requests())


def test_whether_an_agent_contains_anybody_does_not_matter(make: Callable[..., Btf]) -> None:
    btf = make()
    plugins = Plugins.load(Config(plugins=ALL), "test", Features(), lambda fault: pytest.fail(str(fault))).sensors
    observing = unit_requests((process_sensor(), *plugins))
    enforcing = unit_requests((process_sensor(), *enforcing_sensors(), *plugins))
    assert key(btf, observing) == key(btf, enforcing) == key(btf, requests())
    probes = {each.name: len(each.probes) for each in observing}
    assert probes["containment"] == 0
    assert probes["process"] > 0


def test_where_krie_lies_does_not_matter(make: Callable[..., Btf]) -> None:
    btf = make()
    moved = tuple(
        replace(
            each, sources=tuple(CFile(f"/opt/elsewhere/{index}", file.text) for index, file in enumerate(each.sources))
        )
        for each in requests()
    )
    assert key(btf, moved) == key(btf, requests())


def test_the_size_of_the_ring_is_given_with_the_maps(make: Callable[..., Btf]) -> None:
    made = unit(make(), requests())
    assert made.entries(1 << 20) == {"krie_ring": 1 << 20, "krie_alive": len(made.programs)}


def test_sources_and_plugins_matter(make: Callable[..., Btf]) -> None:
    btf = make()
    first, *others = requests()
    changed = replace(first, sources=(CFile("x", first.sources[0].text + "\n"), *first.sources[1:]))
    keys = [
        key(btf, requests()),
        key(btf, (changed, *others)),
        key(btf, requests({"smep_smap": {}})),
        key(btf, requests(), trial=True),
        unit(btf, requests()).key(btf, ["-b"]),
    ]
    assert len(set(keys)) == len(keys)


def test_helpers_of_the_kernel_matter(make: Callable[..., Btf]) -> None:
    btf = make()
    made = unit(btf, requests())
    assert "KRIE_HAS_FETCH_ADD" in made.macros
    assert not {"KRIE_HAS_SET_RETVAL", "KRIE_HAS_TASK_BTF"} & set(made.macros)
    later = make(helpers=[*HELPERS, ("BPF_FUNC_task_pt_regs", 175), ("BPF_FUNC_set_retval", 187)])
    assert {"KRIE_HAS_SET_RETVAL", "KRIE_HAS_TASK_BTF"} < set(unit(later, requests()).macros)
    tried = Features("6.1", "x86_64", {}, fetch_add=True, set_retval=True, tried=True)
    assert tried.macros_refused == {"KRIE_HAS_TASK_BTF"}
    assert not Features().macros_refused
    no_cgroups = replace(tried, refused={AttachType.CGROUP_SYSCTL: "no"}, set_retval=False, task_btf=True)
    assert not no_cgroups.macros_refused
    cautious = unit(later, requests(), without=tried.macros_refused)
    assert set(unit(later, requests()).macros) - set(cautious.macros) == {"KRIE_HAS_TASK_BTF"}
    assert cautious.key(later, ["-a"]) != key(later, requests())
    none = make(helpers=[])
    assert len({key(each, requests()) for each in (btf, later, none)}) == 3
