"""What bpf(2) is asked lies where this kernel reads it."""

import ctypes

import pytest
from krie.kernel import bpf_attributes as attributes
from krie.kernel.btf import Btf

PLACES = {
    attributes.MapCreate: ("bpf_attr", ""),
    attributes.MapElement: ("bpf_attr", ""),
    attributes.MapFreeze: ("bpf_attr", ""),
    attributes.ProgLoad: ("bpf_attr", ""),
    attributes.TestRun: ("bpf_attr", "test."),
    attributes.ById: ("bpf_attr", ""),
    attributes.Info: ("bpf_attr", "info."),
    attributes.RawTracepointOpen: ("bpf_attr", "raw_tracepoint."),
    attributes.LinkCreate: ("bpf_attr", "link_create."),
    attributes.EnableStats: ("bpf_attr", "enable_stats."),
    attributes.MapInfo: ("bpf_map_info", ""),
    attributes.ProgInfo: ("bpf_prog_info", ""),
}
HERE = attributes.__name__


def test_all_of_them_are_looked_at() -> None:
    there = {each for each in vars(attributes).values() if isinstance(each, type) and each.__module__ == HERE}
    assert there == set(PLACES)


@pytest.mark.parametrize("structure", PLACES, ids=lambda each: each.__name__)
def test_fields_lie_where_the_kernel_has_them(btf: Btf, structure: type[ctypes.Structure]) -> None:
    of, within = PLACES[structure]
    names = [each[0] for each in structure._fields_ if each[0] != "gpl_compatible"]  # which is one bit of a number
    assert {name: getattr(structure, name).offset for name in names} == {
        name: btf.offset(of, within + name) for name in names
    }
