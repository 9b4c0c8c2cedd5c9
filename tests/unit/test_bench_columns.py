"""How the bench prints what it measured: `make bench-here > FILE` has all of it."""

from ..bench.columns import as_text

ROWS = [
    ("embedded, as an agent has it", "13,182/s", "a query: p50 0.05 ms, p99 0.20 ms"),
    ("a", "b", "c " * 80 + "end"),
    ("the memo's gain", "2.0 x", ""),
]


def test_no_figure_is_left_out_or_broken() -> None:
    header, *lines = as_text(ROWS).splitlines()
    assert header == "what                          figure    and"
    assert lines[0] == "embedded, as an agent has it  13,182/s  a query: p50 0.05 ms, p99 0.20 ms"
    assert lines[1].startswith("a                             b         c c ")
    assert lines[1].endswith(" end")
    assert lines[2] == "the memo's gain               2.0 x"
    assert len(lines) == len(ROWS)
