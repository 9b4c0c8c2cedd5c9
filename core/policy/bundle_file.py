"""A bundle in a file of this machine that is to decide, instead of all folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..config import Config
from ..errors import ConfigError, PolicyError
from ..events.wire import Json
from ..services_config import is_url
from ..trust import read_trusted
from .archive import MOST_PACKED
from .bundle import Bundle, read_bundle
from .pinned import VerificationKey, read_keys
from .snapshot import place_of
from .sources import PolicySources

KEPT_FOLDER = "bundle"
"""Below `agent.state_dir`."""
_EXECUTABLES = "executables"
_MOST_EXECUTABLES = 512
"""The agent holds each of them open."""


@dataclass(frozen=True, slots=True)
class BundleFile:
    """Where it lies, and whose signature it must have."""

    path: Path
    keys: Mapping[str, VerificationKey] = field(default_factory=dict, repr=False)
    """Empty: it need not be signed, since only root can have put it there."""
    executables: Mapping[str, str] = field(default_factory=dict)
    """The names that it gives to executables, as `executables_of` says."""
    url: str = ""
    """Where it was fetched; its file is then only a copy, which may be gone when somebody reads a message."""

    @property
    def place(self) -> str:
        """What messages call it."""
        return place_of(self.url or self.path)


def configured_bundle(config: Config) -> BundleFile | None:
    """What decides by a configuration, for commands: its file, or what the agent kept of its URL; None: the folders.

    Raises `ConfigError`, `UntrustedFileError`, and `PolicyError` for a file that is not a bundle.
    """
    if not config.policy.bundle:
        return None
    path = Path(config.policy.bundle)
    if is_url(config.policy.bundle):
        path = kept_bundle(config)
        try:
            path.stat()
        except FileNotFoundError:
            return None  # there was none yet: until then the agent, too, decides by the folders
        except OSError as error:
            raise ConfigError(str(path), f"cannot be read: {error.strerror}; run it as root") from error
    return with_executables(BundleFile(path, read_keys(config.bundle.keys)))


def kept_bundle(config: Config) -> Path:
    """The last bundle from a URL that was in force here."""
    return Path(config.agent.state_dir) / KEPT_FOLDER / "active.tar.gz"


def with_executables(file: BundleFile) -> BundleFile:
    """The same with the names that it gives. Not verified: whoever decides by it does that. Raises `PolicyError`."""
    try:
        raw = read_trusted(file.path, MOST_PACKED)
    except ConfigError as error:
        raise PolicyError(str(error)) from error
    return replace(file, executables=executables_of(read_bundle(raw, file.place)))


def read_bundle_file(file: BundleFile) -> Bundle:
    """Read it, and verify its signature. Raises `PolicyError`, `ConfigError`, `UntrustedFileError`."""
    bundle = read_bundle(read_trusted(file.path, MOST_PACKED), file.place)
    if file.keys:
        from .verification import verify  # noqa: PLC0415 - only children that read bundles need it: see `pinned`

        try:
            verify(bundle, file.keys)
        except PolicyError as error:
            raise PolicyError(f"{file.place}: {error}") from error
    return bundle


def executables_of(bundle: Bundle) -> dict[str, str]:
    """The names that it gives to executables. Raises `PolicyError` for what is no such table."""
    found: Json = bundle.sources.data.get(_EXECUTABLES, {})
    if not isinstance(found, dict) or len(found) > _MOST_EXECUTABLES:
        raise PolicyError(f"data.{_EXECUTABLES} must be an object of at most {_MOST_EXECUTABLES} names")
    for name, path in found.items():
        if not name or not isinstance(path, str) or not path.startswith("/") or "\0" in path:
            raise PolicyError(f"data.{_EXECUTABLES}: {name!r} must name an absolute path")
    return {name: str(path) for name, path in found.items()}


def sources_of_bundle(bundle: Bundle, data: Mapping[str, Json]) -> PolicySources:
    """What decides on this host: the bundle, and the names of executables that only this host's configuration has.

    Where these add or change something, the revision is another one: an OPA server with the same bundle does not know
    of them. Raises `PolicyError`.
    """
    executables: dict[str, Json] = {**executables_of(bundle)}
    own = data.get(_EXECUTABLES, {})
    executables.update(own if isinstance(own, dict) else {})
    if executables == bundle.sources.data.get(_EXECUTABLES, {}):
        return bundle.sources
    if not executables:
        return replace(bundle.sources, data={**bundle.sources.data, _EXECUTABLES: {}})
    digest = hashlib.sha256(json.dumps(executables, sort_keys=True).encode()).hexdigest()[:8]
    return replace(
        bundle.sources,
        data={**bundle.sources.data, _EXECUTABLES: executables},
        revision=f"{bundle.revision[:22]}+{digest}",
    )
