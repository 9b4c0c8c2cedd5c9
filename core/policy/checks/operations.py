"""What built-in functions and operators answer, where the values that they get tell more than their types do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from .comparison import unknown_texts
from .limits import bytes_of_a_part, counted
from .looked_up import walked
from .types import ARRAY, NUMBER, SET, TEXT, Type, union

_PARTS: dict[str, tuple[str, Callable[[str, str], bool]]] = {
    "startswith": ("begins with", str.startswith),
    "endswith": ("ends with", str.endswith),
    "contains": ("contains", str.__contains__),
}


def answer_of(name: str, types: Sequence[Type], answer: Type) -> Type:
    """`answer`: what it is by its type alone."""
    if name == "count":
        whose = types[0].name
        return replace(NUMBER, limits=counted(types[0].kinds, types[0].limits), name=f"count({whose})" if whose else "")
    if name == "walk":
        return walked(types[0])
    if name == "array.concat" and all(each.kinds == ARRAY.kinds and each.items is not None for each in types):
        return Type(ARRAY.kinds, items=union(each.items for each in types if each.items is not None))
    if name in ("and", "or", "minus") and all(each.kinds == SET.kinds for each in types):
        items = [each.items for each in types if each.items is not None]
        known = items if name != "minus" else items[:1] if types[0].items is not None else []
        if name != "or" or len(items) == len(types):
            return Type(SET.kinds, items=_narrowest(known) if name == "and" else union(known) if known else None)
    return answer


def _narrowest(items: Sequence[Type]) -> Type | None:
    return next((each for each in items if each.domain), items[0] if items else None)


def mistaken(name: str, types: Sequence[Type]) -> Iterator[tuple[str, str]]:
    """What can never have an effect, and how to fix it."""
    if name in ("and", "minus") and all(each.kinds == SET.kinds and each.items is not None for each in types):
        one, other = (each.items for each in types if each.items is not None)
        if name == "and" or one.domain:  # one may take what an event has out of a set that has more
            yield from unknown_texts(one, other, "&" if name == "and" else "-")
    if name in _PARTS and types[0].kinds == TEXT.kinds and not types[1].domain and not types[1].others:
        yield from _parts(name, types[0], types[1], types[1].texts or frozenset())


def _parts(name: str, whole: Type, part: Type, texts: frozenset[str]) -> Iterator[tuple[str, str]]:
    words, holds = _PARTS[name]
    if whole.domain and whole.texts is not None:
        never = {text for text in texts if not any(holds(each, text) for each in whole.texts)}
        fix = f"its values are {', '.join(sorted(each for each in whole.texts if each)[:12])}"
    else:
        begins = name == "startswith"
        never = {text for text in texts if bytes_of_a_part(text, begins=begins) > whole.limits.size}
        fix = f"it holds at most {whole.limits.size} bytes"
    if not part.shared or never == texts:
        for text in sorted(never):
            yield f'{whole.name or "this text"} never {words} "{text}"', fix
