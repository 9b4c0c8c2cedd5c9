"""Which answers depend on the input alone, so that they may be remembered."""

from __future__ import annotations

from collections.abc import Iterator

from .definition import Node, reference

PURE = frozenset(
    """abs all any array.concat array.flatten array.reverse array.slice bits.and bits.lsh bits.negate bits.or bits.rsh
    bits.xor ceil concat contains count endswith floor format_int glob.match indexof indexof_n intersection is_array
    is_boolean is_null is_number is_object is_set is_string json.filter json.remove json.unmarshal lower max min
    net.cidr_contains numbers.range object.filter object.get object.keys object.remove object.subset object.union
    object.union_n product regex.find_n regex.is_valid regex.match regex.replace regex.split replace round set_diff sort
    split sprintf startswith strings.any_prefix_match strings.any_suffix_match strings.count strings.replace_n
    strings.reverse substring sum to_number trim trim_left trim_prefix trim_right trim_space trim_suffix type_name union
    units.parse units.parse_bytes upper walk""".split()
)
"""Built-in functions that always give the same answer. Any other one keeps its package out of the memo."""


def _nodes(tree: Node) -> Iterator[Node]:
    """Every node, parents first."""
    yield tree
    for each in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        if isinstance(each, dict | list):
            yield from _nodes(each)


def is_pure(tree: Node, own: frozenset[str]) -> bool:
    """Whether a tree calls only such functions, and those of the policy. `own`: what its file calls by these names."""
    for node in _nodes(tree):
        call = node.get("Call") if isinstance(node, dict) else None
        if call is None:
            continue
        found = reference(call["fcn"])
        name = ".".join((found[0], *found[1])) if found is not None else ""
        if name not in PURE and not name.startswith("data.") and name.partition(".")[0] not in own:
            return False
    return True
