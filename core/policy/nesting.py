"""How deep a policy's text may be nested: each level doubles the time of the engine's parser, until its stack ends."""

from __future__ import annotations

import re

from ..errors import PolicyError

MOST_COLLECTIONS = 12
"""Of `[` and `{`: a quarter of a second."""
MOST_BRACKETS = 64
_REFUSED = re.compile("[\0\ufeff]")
_SHOWN = {"\0": "a null character", "\ufeff": "a byte-order mark"}
# A text that its line does not close is one token too: tried again from each of its quotes, a line would take quadratic
# time, and what is read here may be anybody's. Nothing is given back (`*+`), which would take memory.
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*+"?|`[^`]*`|#[^\n]*|[\[{(]|[\]})]')


def check_text(text: str, place: str) -> None:
    """Raise `PolicyError` with FILE:LINE:COLUMN for what is nested deeper than that, and for what OPA reads nowhere.

    What is not Rego otherwise is left alone.
    """
    if (found := _REFUSED.search(text)) is not None:
        line, start = text.count("\n", 0, found.start()) + 1, text.rfind("\n", 0, found.start())
        raise PolicyError(f"{place}:{line}:{found.start() - start}: holds {_SHOWN[found[0]]}; drop it")
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
