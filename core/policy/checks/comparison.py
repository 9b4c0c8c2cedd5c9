"""What is wrong with comparing two values, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from .limits import FREE
from .types import TEXT, WORDS, Type, overlap

_MISSPELT = 0.8
_COLLECTIONS = frozenset({"array", "set"})
_ALL = frozenset({"*"})
"""Texts that policies write for whatever there is."""
_OTHER = "compare with another value"
_EQUALS = frozenset({"==", "!=", "=", "in", "&", "-"})


def differences(one: Type, other: Type, operator: str) -> Iterator[tuple[str, str]]:
    """What and how to fix it: for types that have no value in common, and texts that one of them never is."""
    if not overlap(one, other):
        outcome = {"!=": "is always true", "<": "depends on their types only", ">": "depends on their types only"}
        fails = outcome.get(operator if operator == "!=" else operator[0], "is never true")
        alike = bool(one.kinds & other.kinds)  # then their elements differ
        shown = [
            f"{each.shown} of {plural(each.items)}" if alike and each.items else each.shown for each in (one, other)
        ]
        yield f"compares {' with '.join(shown)} by {operator}, which {fails}", _alike(one, other)
        return
    yield from unknown_texts(one, other, operator)
    yield from _numbers(one, other, operator)
    yield from _literals(one, other, operator)
    if one.domain and other.domain and not (one.texts or frozenset()) & (other.texts or frozenset()):
        yield f"{one.name} and {other.name} have no value in common", "compare others"
    for pair in _parts(one, other, operator):
        yield from differences(*pair, operator)


def unknown_texts(one: Type, other: Type, operator: str) -> Iterator[tuple[str, str]]:
    """The same, of texts alone."""
    for left, right in ((one, other), (other, one)):
        if right.texts is None or right.domain:
            continue
        if left.domain and left.texts is not None:
            none = not right.texts & left.texts and not right.others
            for text in sorted(right.texts - left.texts - _ALL):
                if right.shared and not none and not get_close_matches(text, left.texts, 1, _MISSPELT):
                    continue  # it may be meant for another field
                yield f'"{text}" is not {left.domain}', similar(text, left.texts, "; there are ", left.remedy)
        elif left.texts is None and left.kinds == TEXT.kinds and operator in _EQUALS:
            why = {text: why for text in sorted(right.texts) if (why := left.limits.excludes(text))}
            if right.shared and (right.others or len(why) < len(right.texts)):
                continue
            for text, limit in why.items():
                yield f'{left.name or "this text"} is never "{text}"', f"it {limit}"


def _numbers(one: Type, other: Type, operator: str) -> Iterator[tuple[str, str]]:
    if one.kinds != {"number"} or other.kinds != {"number"} or not one.limits.never(operator, other.limits):
        return
    outcome = "always true" if operator == "!=" else "never true"
    for each, against in ((one, other), (other, one)):
        if each.name and each.limits != FREE:
            what = f"compares {each.name} with {_number(against)} by {operator}, which is {outcome}"
            yield what, f"it is {' and '.join(each.limits.told())}"
            return
    if one.limits.closed and other.limits.closed:  # such as what an object that is written out has for its keys
        yield f"compares {_number(one)} with {_number(other)} by {operator}, which is {outcome}", _OTHER


def _number(type_: Type) -> str:
    limits = type_.limits
    return f"a number of {' and '.join(limits.told())}" if limits.least < limits.most else f"{limits.least}"


def _literals(one: Type, other: Type, operator: str) -> Iterator[tuple[str, str]]:
    """Of texts that are all written out."""
    texts = [each.texts for each in (one, other) if each.texts and not (each.domain or each.shared or each.others)]
    if operator in ("==", "=", "in") and len(texts) == 2 and not texts[0] & texts[1]:
        shown = (" or ".join(f'"{text}"' for text in sorted(each)) for each in texts)
        yield f"compares {' with '.join(shown)} by {operator}, which is never true", _OTHER


def _parts(one: Type, other: Type, operator: str) -> Iterator[tuple[Type, Type]]:
    """What is compared with each other where two collections are."""
    if operator not in _EQUALS:
        return
    if one.places is not None and other.places is not None:
        yield from zip(one.places, other.places, strict=False)
    elif one.kinds <= _COLLECTIONS and other.kinds <= _COLLECTIONS and one.items and other.items:
        yield one.items, other.items
    elif one.kinds == other.kinds == {"object"} and (one.is_literal or other.is_literal):
        for name in (one.members or {}).keys() & (other.members or {}).keys():
            yield (one.members or {})[name], (other.members or {})[name]


def plural(items: Type | None) -> str:
    """Such as `numbers`; empty where nothing is known."""
    return " and ".join(WORDS[each].split()[-1] + "s" for each in sorted(items.kinds)) if items is not None else ""


def _alike(one: Type, other: Type) -> str:
    kinds = {next(iter(each.kinds)) for each in (one, other) if len(each.kinds) == 1}
    if kinds == {"number", "string"}:
        literal = next(
            (each for each in (one, other) if each.texts is not None and not each.domain and len(each.texts) == 1), None
        )
        if literal is not None and literal.texts and next(iter(literal.texts)).lstrip("-").isdigit():
            return f"write {next(iter(literal.texts))} without quotes"
        return 'write both as numbers or both as text; addresses are text, such as "0x0000000000000000"'
    if kinds == {"array", "set"}:
        return "write the set as an array, or ask by `in`"
    return "compare with a value of its own type"


def similar(name: str, names: Iterable[str], otherwise: str = "", remedy: str = "check its name") -> str:
    """How to fix a name that is not one of these: `remedy` where none is similar, and `otherwise` introduces them."""
    known = sorted(names)
    last = name.rpartition("/")[2]  # a path where a name is wanted
    if close := [last] if last in known else get_close_matches(name, known, 1, 0.6):
        return f"did you mean {close[0]}?"
    some = ", ".join(each for each in known[:12] if each)
    return f"{remedy}{otherwise}{some}{', ...' if len(known) > 12 else ''}" if some else remedy
