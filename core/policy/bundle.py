"""An OPA bundle as a value: everything that decides, in one file that the embedded engine, the kernel's tables and an
OPA server can take, with one revision that all of them tell.

`bundle_of` makes one of what was read from folders, `read_bundle` takes one from bytes, `Bundle.to_bytes` writes it:
the same rules and data give the same bytes. Its data is one `data.json` at the root, since OPA would put that of
another file below its folder's name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import PolicyError
from ..events.wire import Json
from ..opa.entry_points import FOLDER, PACKAGE, entry_points, package_of
from .archive import pack, unpack
from .json_text import read_json
from .nesting import check_text
from .sources import PolicyFile, PolicySources, revision_of

DATA, MANIFEST, SIGNATURES = "data.json", ".manifest", ".signatures.json"
"""Names that OPA gives these files."""
_OWN = tuple(PACKAGE.split("."))
_UNSAFE = str.maketrans({each: "_" for each in map(chr, range(128)) if not (each.isalnum() or each in "-_./")})


class Manifest(BaseModel):
    """`.manifest`, as far as KRIe takes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    revision: str = Field("", max_length=64)
    roots: list[str] = Field(default_factory=lambda: [""], max_length=4096)
    rego_version: int = Field(1, ge=1, le=1)
    file_rego_versions: dict[str, int] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bundle:
    """Rules and data with their manifest. Two with the same `files` have the same bytes."""

    files: Mapping[str, bytes]
    """All members by path, such as `agent/agent.rego`, `data.json` and `.manifest`; not the signatures."""
    manifest: Manifest
    sources: PolicySources
    """What decides: to be compiled by the embedded engine, and into the kernel's tables. Its revision is the bundle's;
    KRIe's entry points, which only an OPA server needs, are not among its files."""
    signatures: bytes = field(default=b"", repr=False)
    """`.signatures.json`; empty where it is not signed. Nothing here verifies it."""

    @property
    def revision(self) -> str:
        """As all three engines tell it: the manifest's, or a digest of the contents where that has none."""
        return self.sources.revision

    def signed(self, signatures: bytes) -> Bundle:
        """The same with this `.signatures.json`: see `krie.policy.signature`."""
        return replace(self, signatures=signatures)

    def to_bytes(self) -> bytes:
        """The archive, as OPA reads it."""
        signatures = {SIGNATURES: self.signatures} if self.signatures else {}
        return pack({**self.files, **signatures})


def bundle_of(sources: PolicySources) -> Bundle:
    """The bundle of what is in force. Raises `PolicyError` where a file is of the package that KRIe adds itself."""
    for file in sources.files:
        if package_of(file.text) == _OWN:
            raise PolicyError(f"{file.place}:1: package {PACKAGE} is KRIe's own entry point; name yours otherwise")
    texts = _with_paths(sources.files)
    entries = entry_points(texts.values())
    texts |= {f"{FOLDER}/{name}": text for name, text in entries.items()}
    manifest = Manifest(revision=revision_of(texts.values(), sources.data), roots=_roots(texts.values(), sources.data))
    files = {path: text.encode() for path, text in texts.items()}
    files[DATA] = _json(sources.data)
    files[MANIFEST] = _json(manifest.model_dump(include={"revision", "roots", "rego_version"}))
    return Bundle(files, manifest, replace(sources, revision=manifest.revision))


def read_bundle(raw: bytes, place: str) -> Bundle:
    """A bundle from an archive's bytes, whoever made it. `place`: its file or URL, for messages.

    Signatures are kept and not verified. Raises `PolicyError` for what is not a bundle, what OPA would read otherwise
    than KRIe (Rego v0, YAML, WebAssembly, patches, tests), and for what its own manifest does not permit.
    """
    files = unpack(raw, place)
    signatures = files.pop(SIGNATURES, b"")
    manifest = _manifest(files, place)
    data: dict[str, Json] = {}
    places: dict[str, str] = {}
    modules: list[PolicyFile] = []
    for path, content in sorted(files.items()):
        where, text = f"{place}/{path}", _text(content, f"{place}/{path}")
        name = PurePosixPath(path).name
        if path == MANIFEST:
            continue
        if name == DATA:
            _merge(data, tuple(PurePosixPath(path).parent.parts), read_json(text, where), where, places)
        elif name.endswith(".rego") and not name.endswith("_test.rego"):
            check_text(text, where)
            above, slash, _ = path.partition("/")
            modules.append(PolicyFile(where, text, f"{place}/{above}" if slash else place))
        else:
            raise PolicyError(f"{where}: a bundle for KRIe holds .rego files, {DATA} and {MANIFEST}: no tests, no YAML")
    _require_roots(manifest.roots, modules, data, place)
    deciding = tuple(each for each in modules if package_of(each.text) != _OWN)
    revision = manifest.revision or revision_of((each.text for each in modules), data)
    return Bundle(files, manifest, PolicySources(deciding, data, revision, places), signatures)


def _with_paths(modules: Iterable[PolicyFile]) -> dict[str, str]:
    """Texts by path in the bundle: the name of the folder that they were read from, and their place below it."""
    owners: dict[str, str] = {}
    texts: dict[str, str] = {}
    for file in modules:
        owner = file.owner or str(PurePosixPath(file.place).parent)
        if owner not in owners:
            owners[owner] = _free(_safe(PurePosixPath(owner).name) or "policies", {*owners.values(), FOLDER})
        below = file.place.removeprefix(owner).lstrip("/")
        stem = f"{owners[owner]}/{_safe(below).removesuffix('.rego')}"
        texts[f"{_free(stem, {path.removesuffix('.rego') for path in texts})}.rego"] = file.text
    return texts


def _safe(path: str) -> str:
    parts = (part.lstrip(".") for part in path.translate(_UNSAFE).split("/"))
    return "/".join(part for part in parts if part)


def _free(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _roots(texts: Iterable[str], data: Mapping[str, Json]) -> list[str]:
    """What the bundle owns of an OPA server's documents; everything, where a name cannot be a root."""
    names = {package[0] for text in texts if (package := package_of(text)) is not None} | set(data)
    return sorted(names) if all(name and "/" not in name for name in names) else [""]


def _require_roots(roots: list[str], modules: Iterable[PolicyFile], data: Mapping[str, Json], place: str) -> None:
    owned = _Owned(roots)
    if owned.overlap:
        raise PolicyError(f"{place}/{MANIFEST}: roots overlap, which OPA refuses; keep the shorter one of both")
    shown = f"{roots[:8]}{' and others' if len(roots) > 8 else ''}"[:200]
    for file in modules:
        package = package_of(file.text)
        if package is None:
            raise PolicyError(f"{file.place}:1: does not begin with its package")
        if package not in owned:
            raise PolicyError(f"{file.place}:1: package {'.'.join(package)} is outside of the manifest's roots {shown}")
    for path in _leaves(data, owned.depth):
        if path not in owned:
            raise PolicyError(f"{place}: data.{'.'.join(path)} is outside of the manifest's roots {shown}")


class _Owned:
    """All that is below some roots. A tree: a manifest may have thousands of them, a bundle millions of values."""

    def __init__(self, roots: Iterable[str]) -> None:
        self._tree: dict[str, Any] = {}
        self.depth = 0
        """Of the longest root."""
        self.overlap = False
        """Whether one is another one, or below it."""
        for root in roots:
            at, parts = self._tree, [part for part in root.split("/") if part]
            self.depth = max(self.depth, len(parts))
            for part in parts:
                self.overlap = self.overlap or "" in at
                at = at.setdefault(part, {})
            self.overlap = self.overlap or bool(at)
            at[""] = {}  # a root ends here; no part is empty

    def __contains__(self, path: tuple[str, ...]) -> bool:
        at: dict[str, Any] | None = self._tree
        for part in path:
            if at is None or "" in at:
                break
            at = at.get(part) if part else None
        return at is not None and "" in at


def _leaves(data: Mapping[str, Json], depth: int, above: tuple[str, ...] = ()) -> Iterable[tuple[str, ...]]:
    for key, value in data.items():
        if depth > 1 and isinstance(value, dict) and value:
            yield from _leaves(value, depth - 1, (*above, key))
        else:
            yield (*above, key)


def _manifest(files: Mapping[str, bytes], place: str) -> Manifest:
    if MANIFEST not in files:
        return Manifest()
    where = f"{place}/{MANIFEST}"
    try:
        found = Manifest.model_validate(read_json(_text(files[MANIFEST], where), where))
    except ValidationError as error:
        first = error.errors()[0]
        raise PolicyError(f"{where}: {'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}") from None
    if any(version != 1 for version in found.file_rego_versions.values()):
        raise PolicyError(f"{where}: file_rego_versions names a version other than 1; KRIe reads Rego v1")
    return found


def _merge(data: dict[str, Json], path: tuple[str, ...], content: Json, where: str, places: dict[str, str]) -> None:
    """Put the content of a data file where OPA does: below the names of its folders."""
    if not isinstance(content, dict):
        raise PolicyError(f"{where}:1: must hold one JSON object")
    at: dict[str, Json] = data
    for name in path:
        inner = at.setdefault(name, {})
        if not isinstance(inner, dict):
            raise PolicyError(f"{where}: data.{'.'.join(path)} is set by another file too")
        at = inner
    for key in content:
        if key in at:
            raise PolicyError(f"{where}: data.{'.'.join((*path, key))} is set by another file too")
    at.update(content)
    for key in path[:1] or content:
        places.setdefault(key, where)


def _text(content: bytes, where: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise PolicyError(f"{where}: is not UTF-8: {error.reason} at byte {error.start}") from None


def _json(content: object) -> bytes:
    return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False).encode() + b"\n"
