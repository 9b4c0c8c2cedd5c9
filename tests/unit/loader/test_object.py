"""A compiled unit as a value, and as JSON."""

import base64
import copy
import json
import struct
from typing import Any

import pytest
from krie.kernel.bpf import MapShape
from krie.loader.object import Object, with_maps

LOAD_64, ADD, EXIT = 0x18, 0x0F, 0x95


def instruction(operation: int, registers: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("<BBhi", operation, registers, 0, immediate)


def code(first: int, second: int) -> bytes:
    """Two references to maps, a number like the first that is none, and one whose second half looks like one."""
    return b"".join(
        (
            instruction(LOAD_64, 0x11, first) + instruction(0),
            instruction(LOAD_64, 0x02, first) + instruction(0),
            instruction(LOAD_64, 0x11, second) + instruction(0),
            instruction(LOAD_64, 0x00) + instruction(LOAD_64, 0x10, 99),
            instruction(ADD),
            instruction(EXIT),
        )
    )


MADE = Object(
    {"counts": MapShape(6, 4, 24, 3, 0, "counts"), "seen": MapShape(1, 8, 16, 32, 1, "seen")},
    {"look": code(1, 0), "nothing": instruction(EXIT)},
    "a compiler",
)


def test_it_survives_json() -> None:
    assert Object.from_json(json.loads(json.dumps(MADE.to_json()))) == MADE


def test_only_references_to_maps_are_renumbered() -> None:
    changed = with_maps(code(7, 9), {7: 1, 9: 0})
    expected = bytearray(code(7, 9))
    expected[4:8], expected[36:40] = struct.pack("<i", 1), struct.pack("<i", 0)
    assert changed == bytes(expected)


def damage(change: dict[str, Any]) -> Any:
    made = copy.deepcopy(MADE.to_json())
    for path, value in change.items():
        *parents, last = path.split("/")
        place = made
        for each in parents:
            place = place[each]
        place[last] = value
    return made


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        damage({"maps": []}),
        damage({"maps/seen": [1, 8, 16, 32, 1]}),
        damage({"maps/seen": [1, 8, 16, 32, -1, "seen"]}),
        damage({"maps/seen": [1, 8, 16, 1 << 32, 1, "seen"]}),
        damage({"maps/seen": [True, 8, 16, 32, 1, "seen"]}),
        damage({"maps/seen": ["1", 8, 16, 32, 1, "seen"]}),
        damage({"functions/look": "no base64!"}),
        damage({"functions/look": 3}),
        damage({"functions/look": ""}),
        damage({"functions/look": base64.b64encode(bytes(12)).decode()}),
        damage({"functions/look": base64.b64encode(code(2, 0)).decode()}),
        damage({"functions/look": base64.b64encode(code(-1, 0)).decode()}),
    ],
)
def test_what_is_none_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="holds"):
        Object.from_json(data)
