"""Keys that are pinned: a value of its own, since the library that checks signatures takes 12 MB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from ..services_config import PinnedKey
from ..trust import read_secret, read_trusted


@dataclass(frozen=True, slots=True, repr=False)
class VerificationKey:
    """A public key as PEM text, or for HS256 and its like the secret."""

    key: bytes
    algorithm: str = "RS256"
    scope: str = ""
    """What the signature has to be for; a signature that names another scope, or one where this is empty, is none."""


def read_keys(pinned: Mapping[str, PinnedKey]) -> dict[str, VerificationKey]:
    """The keys of the configuration, by id. Raises `ConfigError`, `UntrustedFileError`."""
    return {name: VerificationKey(_read(each), each.algorithm, each.scope) for name, each in pinned.items()}


def _read(key: PinnedKey) -> bytes:
    path = Path(key.file)
    if key.algorithm.startswith("HS"):
        return read_secret(path).rstrip(b"\r\n")
    content = read_trusted(path)
    if b"PRIVATE KEY-----" in content:  # it would verify, too
        raise ConfigError(
            str(path),
            "is a private key, by which this host could sign bundles for all others; pin the public one, which "
            "`openssl pkey -in KEY -pubout` prints",
        )
    return content
