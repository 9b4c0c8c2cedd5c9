"""One file of rules as parsed: its package, its imports, its definitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import PolicyError
from ..events.inline import NamePath
from ..opa.entry_points import PACKAGE
from .definition import Definition, Node, reference, text_at

_LANGUAGE = frozenset(
    (
        ("rego", "v1"),
        ("future", "keywords"),
        *(("future", "keywords", name) for name in ("contains", "every", "if", "in")),
    )
)
"""What else may be imported: parts of the language, which are all in force anyway."""

LOG_PACKAGE = "data.system.log"
"""OPA's own, which masks what decision logs say (see `krie.services.mask`); it decides nothing."""


@dataclass(frozen=True, slots=True)
class Import:
    """`import TARGET as ALIAS`."""

    alias: str
    target: NamePath
    """All of it, from `input` or `data` on."""
    place: str
    """FILE:LINE"""


@dataclass(frozen=True, slots=True)
class Module:
    """One Rego file, parsed."""

    file: str
    owner: str
    """The folder that its package belongs to."""
    source: str
    package: str
    """Such as `data.krie.site`."""
    line: int
    """Where it says its package."""
    imports: Mapping[str, Import]
    """By alias."""
    definitions: tuple[Definition, ...]


def module_of(node: Node, owners: Mapping[str, str]) -> Module:
    """`node`: one element of what `regorus.Engine.get_ast_as_json` gives; `owners`: folders by file.

    Raises `PolicyError` for a package that is not KRIe's, or that is its entry point, which every bundle gets.
    """
    tree, file, source = node["ast"], str(node["source"]["file"]), str(node["source"]["contents"])
    line = int(tree["package"]["span"]["line"])
    found = reference(tree["package"]["refr"])
    package = ".".join(("data", found[0], *found[1])) if found is not None else "data"
    if not package.startswith("data.krie.") and package != LOG_PACKAGE:
        raise PolicyError(f"{file}:{line}: its package must be named krie.<name>")
    if package == f"data.{PACKAGE}":
        raise PolicyError(f"{file}:{line}: package {PACKAGE} is KRIe's own entry point; name yours otherwise")
    imports = {}
    for each in tree["imports"]:
        if (target := reference(each["refr"])) is not None:
            full = (target[0], *target[1])
            alias = text_at(source, each["as"]) if each.get("as") else full[-1]
            place = f"{file}:{each['span']['line']}"
            if alias in ("input", "data") and full != (alias,):
                raise PolicyError(f"{place}: an import cannot be named {alias}; name it otherwise (`import ... as`)")
            if full[0] in ("input", "data"):
                imports[alias] = Import(alias, full, place)
            elif full not in _LANGUAGE:
                raise PolicyError(f"{place}: there is no {'.'.join(full)} to import; import rego.v1 is enough")
    definitions = []
    for each in tree["rules"]:
        (body,) = each.values()
        head = body.get("head") or {}
        shape = next(iter(head.values())) if head else body
        target = reference(shape["refr"])
        definitions.append(
            Definition(
                target[0] if target is not None else "",
                "Var" in shape["refr"],
                body,
                int(body["span"]["line"]),
                file,
                source,
                target[1] if target is not None else (),
            )
        )
    return Module(file, owners.get(file, ""), source, package, line, imports, tuple(definitions))
