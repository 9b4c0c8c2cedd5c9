"""Whose code an address is, and which functions modules have patched."""

from pathlib import Path

import pytest
from krie.config import Config
from krie.kernel.features import Features
from krie.plugin.manager import Plugins
from krie.plugins.runtime_integrity import plugin
from krie.plugins.runtime_integrity.code_owner import ModuleRanges
from krie.plugins.runtime_integrity.module_load import ModuleLoad
from krie.plugins.runtime_integrity.module_unload import ModuleUnload
from krie.plugins.runtime_integrity.patched_functions import Patch, PatchedFunctions, patched
from krie.plugins.runtime_integrity.probe_register import ProbeRegister
from krie.testing.events import build

LISTED = """proc_tgid_stat (1) R I   \ttramp: 0xffffffffc0a4a000 (hook+0x0/0x10 [evil]) ->ftrace_ops_assist_func
schedule (1) R   D \ttramp: 0xffffffffa020a000 (bpf_trampoline_6442+0x0/0x7b [bpf])
do_exit (1)         \ttramp: 0xffffffffc0a5a000 (kprobe_ftrace_handler+0x0/0x1b0)
nf_hook_slow [netfilter] (2) R I\t->arch_ftrace_ops_list_func+0x0/0x1d0
vfs_read (1) R I   \ttramp: 0xffffffffc0a4b000 (klp_ftrace_handler+0x0/0x200)
vfs_open (1)         \ttramp: gone_init+0xb000/0x1000 [gone] (ftrace_graph_func+0x0/0x60) ->ftrace_graph_func+0x0/0x60
vfs_stat (2)         \ttramp: 0xffffffffc0a5b000 (function_trace_call+0x0/0x1) ->ftrace_ops_list_func+0x0/0x1
"""
HANDLERS = """kfree (1) R   D \ttramp: 0xffffffffc0a4a000 (call_direct_funcs+0x0/0x10)
\tdirect-->my_tramp+0x0/0x10 [direct]
vfs_open (1)   \ttramp: 0xffffffffc0a5b000 (a+0x0/0x1)\tsubops: {ent:enter+0x0/0x9 [graph] ret:leave+0x0/0x9 [graph]}
commit_creds (1)   \t->all+0x0/0x1\tsubops: {gone+0x0/0x9 [gone] (handle+0x0/0x9 [sub])} {plain+0x0/0x9 [plain]}
override_creds (1)\t->assist+0x0/0x9 [assist]
"""


def test_only_handlers_of_modules_count() -> None:
    assert patched(LISTED) == {Patch("proc_tgid_stat", "evil")}
    assert patched("") == frozenset()


def test_every_way_in_which_the_kernel_names_a_handler_is_known() -> None:
    assert patched(HANDLERS) == {
        Patch("kfree", "direct"),
        Patch("vfs_open", "graph"),
        Patch("commit_creds", "sub"),
        Patch("commit_creds", "plain"),
        Patch("override_creds", "assist"),
    }


@pytest.mark.parametrize(("functions", "told", "others"), [(63, 63, 0), (64, 64, 0), (65, 64, 1), (50_000, 64, 49_936)])
def test_a_module_that_patches_everything_is_told_in_few_events(functions: int, told: int, others: int) -> None:
    text = "".join(f"f{n:05} (1)  \t->trace+0x0/0x9 [tracer]\n" for n in range(functions)) + LISTED
    found = PatchedFunctions().new(text)
    assert found[0] == Patch("proc_tgid_stat", "evil")
    assert [each.function for each in found[1:]] == [f"f{n:05}" for n in range(told)]
    assert [each.others for each in found] == [0] * told + [others]


def test_a_patch_is_told_once_for_as_long_as_it_stays() -> None:
    watched = PatchedFunctions()
    assert watched.new(LISTED) == [Patch("proc_tgid_stat", "evil")]
    assert watched.new(LISTED) == []
    assert watched.new("") == []
    assert watched.new(LISTED) == [Patch("proc_tgid_stat", "evil")]


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    file = tmp_path / "modules"
    file.write_text("b 4096 0 - Live 0xffffffffc0002000 (OE)\na 4096 1 b, Live 0xffffffffc0000000\n")
    return file


def test_addresses_belong_to_the_modules_around_them(modules: Path) -> None:
    ranges = ModuleRanges(modules)
    found = [ranges.find(0xFFFF_FFFF_C000_0000 + offset) for offset in (0, 0xFFF, 0x1000, 0x1FFF, 0x2000, 0x3000)]
    assert found == ["a", "a", None, None, "b", None]
    assert ranges.find(0xFFFF_FFFF_8000_0000) is None
    assert not ranges.hidden


def test_modules_are_read_anew_once_they_may_have_changed(modules: Path) -> None:
    ranges = ModuleRanges(modules)
    assert ranges.find(0xFFFF_FFFF_C000_0000) == "a"
    modules.write_text("c 4096 0 - Live 0xffffffffc0000000\n")
    assert ranges.find(0xFFFF_FFFF_C000_0000) == "a"
    ranges.freed("a")
    assert ranges.find(0xFFFF_FFFF_C000_0000) == "c"


def test_a_module_that_is_gone_by_now_is_known_by_its_events(modules: Path) -> None:
    """Its events come in their order, but later than the kernel does things."""
    ranges = ModuleRanges(modules)
    ranges.linked("brief", 0xFFFF_FFFF_C000_4000, 4096)
    ranges.linked("nowhere", 0, 0)
    assert [ranges.find(0xFFFF_FFFF_C000_0000 + offset) for offset in (0x4FFF, 0x2000, 0)] == ["brief", "b", "a"]
    ranges.freed("brief")
    assert ranges.find(0xFFFF_FFFF_C000_4FFF) is None


def test_a_module_whose_place_another_one_has_is_gone(modules: Path) -> None:
    """The record of its end was lost."""
    ranges = ModuleRanges(modules)
    ranges.linked("gone", 0xFFFF_FFFF_C000_4000, 8192)
    ranges.linked("next", 0xFFFF_FFFF_C000_5000, 4096)
    assert ranges.find(0xFFFF_FFFF_C000_4000) is None
    assert ranges.find(0xFFFF_FFFF_C000_5000) == "next"
    modules.write_text("listed 8192 0 - Live 0xffffffffc0005000\n")  # of which no record came
    ranges.linked("far", 0xFFFF_FFFF_C010_0000, 4096)
    assert ranges.find(0xFFFF_FFFF_C020_0000) is None  # has it read
    assert [ranges.find(0xFFFF_FFFF_C000_0000 + offset) for offset in (0x5000, 0x6000, 0x10_0000)] == [
        "listed",
        "listed",
        "far",
    ]


def test_events_of_modules_tell_whose_code_a_handler_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the agent calls the plugin, for kinds without facts, too: a module that went is blamed for nothing."""
    ranges = ModuleRanges(tmp_path / "none")
    monkeypatch.setattr(plugin, "ModuleRanges", lambda: ranges)
    plugins = Plugins.load(Config(plugins={"runtime_integrity": {}}), "krie.toml", Features(), lambda fault: None)
    enrich = {name.partition(".")[2]: each for name, each in plugins.enrichers().items()}
    handler = build(ProbeRegister, handler=0xFFFF_FFFF_C000_0010, module="")
    assert enrich["probe_register"](handler) == {"owner": "?"}
    place = {"code_address": 0xFFFF_FFFF_C000_0000, "code_size": 4096}
    enrich["module_load"](build(ModuleLoad, name="other", step="asked", **place))
    assert enrich["probe_register"](handler) == {"owner": "?"}
    enrich["module_load"](build(ModuleLoad, name="brief", step="linked", **place))
    assert enrich["probe_register"](handler) == {"owner": "brief"}
    enrich["module_unload"](build(ModuleUnload, name="brief", step="asked"))
    assert enrich["probe_register"](handler) == {"owner": "brief"}
    enrich["module_unload"](build(ModuleUnload, name="brief", step="freed"))
    assert enrich["probe_register"](handler) == {"owner": "?"}
    assert enrich["probe_register"](build(ProbeRegister, handler=1, module="")) == {"owner": "kernel"}


def test_hidden_addresses_are_no_knowledge(modules: Path, tmp_path: Path) -> None:
    modules.write_text("a 4096 0 - Live 0x0000000000000000\n")
    ranges = ModuleRanges(modules)
    assert ranges.find(0) is None
    assert ranges.hidden
    assert ModuleRanges(tmp_path / "none").find(0xFFFF_FFFF_C000_0000) is None
