"""How deep a policy's text may be nested: each level doubles the time of the engine's parser, until its stack ends."""

from __future__ import annotations

import re

from ..errors import PolicyError

MOST_COLLECTIONS = 12
"""Of `[` and `{`: a quarter of a second."""
MOST_BRACKETS = 64
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|`[^`]*`|#[^\n]*|[\[{(]|[\]})]')


def check_nesting(text: str, place: str) -> None:
    """Raise `PolicyError` with FILE:LINE:COLUMN for what is nested deeper than that; what is no Rego is left alone."""
    collections = brackets = 0
    for token in _TOKEN.finditer(text):
        if token[0] in ("[", "{", "("):
            brackets += 1
            collections += token[0] != "("
        elif token[0] in ("]", "}", ")"):
            brackets -= 1
            collections -= token[0] != ")"
        if collections > MOST_COLLECTIONS or brackets > MOST_BRACKETS:
            line, start = text.count("\n", 0, token.start()) + 1, text.rfind("\n", 0, token.start())
            most = (
                f"{MOST_COLLECTIONS} levels of [ and {{"
                if collections > MOST_COLLECTIONS
                else f"{MOST_BRACKETS} levels"
            )
            raise PolicyError(
                f"{place}:{line}:{token.start() - start}: is nested deeper than {most}; break it into helper rules, or "
                "put it into a data file"
            )
