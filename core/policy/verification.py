"""Whether a bundle is by who may make policies for this host: OPA's `.signatures.json`, checked with pinned keys.

Which algorithm a key is for is said by whoever pinned the key. What the token says of it has to agree, and chooses
nothing.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from ..errors import PolicyError
from .bundle import SIGNATURES, Bundle
from .json_text import read_json
from .pinned import VerificationKey
from .signature import file_digest

_HASH = "SHA-256"
"""The only one that OPA's tools write."""
_DEFAULT_PLUGIN = "_default"
_MOST_BYTES = 8 << 20
_jws = jwt.PyJWS(options={"enforce_minimum_key_length": True})


@dataclass(frozen=True, slots=True)
class Signed:
    """What a valid signature says."""

    key_id: str
    """The pinned key that made it."""
    expires: float | None
    """The `exp` of its claims, s since 1970; None: never."""


class SignatureRefused(PolicyError):
    """There is no valid signature by a pinned key over exactly these files."""


def verify(bundle: Bundle, keys: Mapping[str, VerificationKey]) -> Signed:
    """Check the signature over all files of a bundle. `keys`: the pinned ones, by id.

    Raises `SignatureRefused`. Whether the signature has expired is for the caller.
    """
    if not bundle.signatures:
        raise SignatureRefused(f"is not signed: there is no {SIGNATURES} in it")
    token = _token(bundle.signatures)
    key_id = _key_id(token, keys)
    claims = _claims(token, keys[key_id])
    _check_files(bundle.files, _listed(claims))
    expires = claims.get("exp")
    if expires is not None and (isinstance(expires, bool) or not isinstance(expires, int | float)):
        raise SignatureRefused(f"{SIGNATURES}: exp of its claims is not a number")
    return Signed(key_id, expires)


def _token(signatures: bytes) -> str:
    if len(signatures) > _MOST_BYTES:
        raise SignatureRefused(f"{SIGNATURES}: is larger than {_MOST_BYTES >> 20} MiB")
    content = _object(signatures, SIGNATURES)
    if content.get("plugin", "") not in ("", _DEFAULT_PLUGIN):
        raise SignatureRefused(f"{SIGNATURES}: is for a plugin of OPA's, {content['plugin']!r}, which is not here")
    tokens = content.get("signatures")
    if not isinstance(tokens, list) or len(tokens) != 1 or not isinstance(tokens[0], str):
        raise SignatureRefused(f"{SIGNATURES}: must hold one signature")
    return tokens[0]


def _key_id(token: str, keys: Mapping[str, VerificationKey]) -> str:
    """The only one that is pinned, whatever the signer calls it (`opa build` says `default`); of several the named one:
    in the header or, as OPA has it, in the claims. Nothing vouches for either yet."""
    try:
        complete = _jws.decode_complete(token, options={"verify_signature": False})
    except jwt.PyJWTError as error:
        raise SignatureRefused(f"{SIGNATURES}: is not a JSON web token: {error}") from error
    named = complete["header"].get("kid") or _object(complete["payload"], SIGNATURES).get("keyid")
    if len(keys) == 1:
        return next(iter(keys))
    if not named:
        raise SignatureRefused(f"{SIGNATURES}: names no key, and {len(keys)} are pinned")
    if not isinstance(named, str) or named not in keys:
        raise SignatureRefused(f"is signed by key {named!r}, which is not pinned; pinned: {', '.join(sorted(keys))}")
    return named


def _claims(token: str, key: VerificationKey) -> dict[str, Any]:
    try:
        payload = _jws.decode(token, key.key, algorithms=[key.algorithm])
    except jwt.InvalidAlgorithmError as error:
        raise SignatureRefused(f"{SIGNATURES}: is not by {key.algorithm}, for which its key is pinned") from error
    except jwt.InvalidSignatureError as error:
        raise SignatureRefused(f"{SIGNATURES}: the signature is not by the pinned key") from error
    except (jwt.PyJWTError, ValueError, TypeError, NotImplementedError) as error:
        raise SignatureRefused(f"{SIGNATURES}: cannot be checked: {error}") from error
    claims = _object(payload, SIGNATURES)
    if claims.get("scope", "") != key.scope:
        raise SignatureRefused(f"is signed for scope {claims.get('scope', '')!r}, not for {key.scope!r}")
    return claims


def _listed(claims: Mapping[str, Any]) -> dict[str, str]:
    """The hash of each file, as the claims have it."""
    files = claims.get("files")
    if not isinstance(files, list):
        raise SignatureRefused(f"{SIGNATURES}: lists no files")
    listed: dict[str, str] = {}
    for each in files:
        if not isinstance(each, dict) or not all(isinstance(each.get(key), str) for key in ("name", "hash")):
            raise SignatureRefused(f"{SIGNATURES}: a file in it has no name or no hash")
        if each["name"] in listed:
            raise SignatureRefused(f"{SIGNATURES}: lists {each['name']!r} twice")
        if each.get("algorithm") != _HASH:
            raise SignatureRefused(
                f"{SIGNATURES}: {each['name']!r} is hashed by {each.get('algorithm')!r}, not {_HASH}"
            )
        listed[each["name"]] = each["hash"]
    return listed


def _check_files(files: Mapping[str, bytes], listed: Mapping[str, str]) -> None:
    for name in sorted(files.keys() - listed.keys()):
        raise SignatureRefused(f"{name!r} is not covered by the signature")
    for name in sorted(listed.keys() - files.keys()):
        raise SignatureRefused(f"{name!r} is covered by the signature and not there")
    for name, content in sorted(files.items()):
        if not hmac.compare_digest(file_digest(name, content).encode(), listed[name].lower().encode()):
            raise SignatureRefused(f"{name!r} is not what was signed: its hash is another")


def _object(raw: bytes, place: str) -> dict[str, Any]:
    content = read_json(_text(raw, place), place)
    if not isinstance(content, dict):
        raise SignatureRefused(f"{place}: holds no JSON object")
    return content


def _text(raw: bytes, place: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise SignatureRefused(f"{place}: is not UTF-8: {error.reason} at byte {error.start}") from error
