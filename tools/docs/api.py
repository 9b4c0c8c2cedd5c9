"""What plugins may import from `krie`, and the hooks that they may implement, from docstrings and annotations."""

from __future__ import annotations

import enum
import inspect
import re
from typing import Annotated, Any, get_args, get_origin

import krie
from krie.config import Config
from krie.plugin import hookspecs
from krie.plugin.manager import Plugins

from .markdown import first_paragraph, table


def names(_config: Config, _plugins: Plugins) -> str:
    """All of `krie.__all__`: classes and functions, then the types of fields."""
    found = {name: getattr(krie, name) for name in sorted(krie.__all__, key=str.lower)}
    documented = {name: each for name, each in found.items() if inspect.isclass(each) or inspect.isfunction(each)}
    fields = {name: get_args(each) for name, each in found.items() if get_origin(each) is Annotated}
    rows = [(f"`{name}`", f"`{kind.__name__}`", f"`{_c(wire)}`") for name, (kind, wire, *_) in fields.items()]
    sections = [_section(name, each) for name, each in documented.items()]
    head = "### Types of fields\n\nIn the classes of events, beside `Bitmap`, `Bytes`, `Chars`, `Choice` and `FlagSet`:"
    return "\n".join([*sections, f"{head}\n\n{table(('name', 'in Python', 'in C'), rows)}"])


def hooks(_config: Config, _plugins: Plugins) -> str:
    """Each hook of the contract."""
    found = [each for name, each in vars(hookspecs).items() if name.startswith("krie_") and inspect.isfunction(each)]
    return "\n".join(_section(each.__name__, each) for each in found)


def _c(wire: Any) -> str:
    return f"{wire.ctype}[{wire.count}]" if wire.count else wire.ctype


def _section(name: str, what: Any) -> str:
    if inspect.isclass(what) and issubclass(what, enum.Enum):
        shape = ", ".join(each.name for each in what)
    else:
        shape = f"{name}{signature(what)}"
    doc = _prose(inspect.getdoc(what) or "")
    rows = [
        (f"`{each}{signature(method)}`", first_paragraph(inspect.getdoc(method)))
        for each, method in vars(what).items()
        if inspect.isclass(what) and not each.startswith("_") and inspect.isfunction(method) and method.__doc__
    ]
    methods = f"\n{table(('method', 'what it does'), rows)}" if rows else ""
    return f"### {name}\n\n```python\n{shape}\n```\n\n{doc}\n{methods}"


def signature(what: Any) -> str:
    """Annotations as they are written; of defaults that are objects, whose text differs from run to run, only dots."""
    try:
        text = str(inspect.signature(what))
    except (TypeError, ValueError):
        return ""
    text = re.sub(r"<[^<>]*(?:<[^<>]*>)?[^<>]*>", "...", text)
    text = re.sub(r"ForwardRef\(('[^']*')\)", r"\1", text)  # what a NamedTuple makes of them
    return text.replace("'", "").replace("self, ", "").replace("(self)", "()")


def _prose(doc: str) -> str:
    """A docstring as Markdown: what looks like a tag outside of code is text."""
    return re.sub(r"`[^`]*`|<", lambda found: "&lt;" if found[0] == "<" else found[0], doc)
