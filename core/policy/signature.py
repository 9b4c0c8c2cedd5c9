"""Signs a bundle in OPA's own format: `.signatures.json` holds one JWT that lists a digest of each file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from ..errors import PolicyError
from .bundle import DATA, MANIFEST, Bundle

ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "ES256",
    "ES384",
    "ES512",
    "PS256",
    "PS384",
    "PS512",
    "HS256",
    "HS384",
    "HS512",
)
KEY_ID = "default"
"""The name under which `opa run --verification-key` looks for the key."""
_LEAST_SECRET = 32
_HASH = "SHA-256"
_OTHER_KEY = "it is of another kind: RS and PS need an RSA key, ES an EC key; choose with --algorithm"


class _Number(str):
    """A number as it is written: 1.0 and 1.00 have different digests."""

    __slots__ = ()


def file_digest(path: str, content: bytes) -> str:
    """The SHA-256 that OPA takes of a bundle's file, in hex: of its bytes, and of JSON without white space and in the
    order of its keys. Raises `ValueError` for invalid JSON."""
    name = path.rpartition("/")[2]
    if name not in (DATA, MANIFEST):
        return hashlib.sha256(content).hexdigest()
    tree = json.loads(content, parse_float=_Number, parse_int=_Number)
    return hashlib.sha256(_canonical(tree).encode()).hexdigest()


def sign(bundle: Bundle, key: bytes, algorithm: str = "RS256", key_id: str = KEY_ID) -> Bundle:
    """The bundle with a signature that OPA verifies. `key`: PEM of the private key, or the secret of an HS algorithm.

    Raises `PolicyError` for a key that does not fit.
    """
    import jwt  # noqa: PLC0415 - 0.1 s of CPU with its cryptography, for which all other commands would pay

    if algorithm not in ALGORITHMS:
        raise PolicyError(f"--algorithm: {algorithm} is not one of {', '.join(ALGORITHMS)}")
    if algorithm.startswith("HS"):
        key = key.rstrip(b"\r\n")
        if len(key) < _LEAST_SECRET:
            raise PolicyError(f"--sign: a secret for {algorithm} must have at least {_LEAST_SECRET} bytes")
    elif b"PRIVATE KEY-----" not in key:
        raise PolicyError(f"--sign: this key cannot sign by {algorithm}: it is not a private key in PEM")
    try:
        token = jwt.encode(_claims(bundle.files, key_id), key, algorithm, headers={"kid": key_id})
    except (jwt.PyJWTError, ValueError, TypeError, NotImplementedError) as error:
        said = " ".join(str(error).split())
        said = _OTHER_KEY if "Invalid Key type" in said else said[:120]
        raise PolicyError(f"--sign: this key cannot sign by {algorithm}: {said}") from None
    return bundle.signed(json.dumps({"signatures": [token]}).encode() + b"\n")


def _claims(files: Mapping[str, bytes], key_id: str) -> dict[str, object]:
    listed = [
        {"name": path, "hash": file_digest(path, content), "algorithm": _HASH}
        for path, content in sorted(files.items())
    ]
    return {"files": listed, "keyid": key_id}


def _canonical(tree: object) -> str:
    if isinstance(tree, dict):
        return "{" + ",".join(f"{_canonical(key)}:{_canonical(tree[key])}" for key in sorted(tree)) + "}"
    if isinstance(tree, list):
        return "[" + ",".join(map(_canonical, tree)) + "]"
    if isinstance(tree, _Number):
        return str(tree)
    # Go's encoder escapes the two that end a line in JavaScript.
    return json.dumps(tree, ensure_ascii=False).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
