"""Keys, and bundles as bytes, for tests."""

import json
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from krie.policy.archive import pack
from krie.policy.bundle import Bundle, read_bundle
from krie.policy.pinned import VerificationKey
from krie.policy.signature import sign

SECRET = b"a secret of more than sixty-four bytes, as HS512 wants it to be in any case"
_PEM, _PRIVATE, _PUBLIC = Encoding.PEM, PrivateFormat.PKCS8, PublicFormat.SubjectPublicKeyInfo
_CURVES: dict[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


def key_pair(algorithm: str, number: int = 0) -> tuple[bytes, bytes]:
    """A private and a public key; of HMAC the same secret twice. Another `number` is another pair."""
    return _key_pair(algorithm, number)


@cache
def _key_pair(algorithm: str, number: int) -> tuple[bytes, bytes]:
    if algorithm.startswith("HS"):
        secret = SECRET + str(number).encode()
        return secret, secret
    private = (
        ec.generate_private_key(_CURVES[algorithm])
        if algorithm in _CURVES
        else rsa.generate_private_key(public_exponent=65537, key_size=2048)
    )
    return private.private_bytes(_PEM, _PRIVATE, NoEncryption()), private.public_key().public_bytes(_PEM, _PUBLIC)


def pinned(algorithm: str = "ES256", name: str = "ci", scope: str = "", number: int = 0) -> dict[str, VerificationKey]:
    return {name: VerificationKey(key_pair(algorithm, number)[1], algorithm, scope)}


def bundle(rules: str, *, serial: int | None = 1, revision: str = "r1", **data: object) -> Bundle:
    """A small one, with one file of rules and no signature."""
    metadata = {} if serial is None else {"metadata": {"krie": {"serial": serial}}}
    manifest = {"revision": revision, "roots": [""], **metadata}
    files = {"data.json": data, ".manifest": manifest}
    return read_bundle(
        pack({"site/site.rego": rules.encode(), **{name: json.dumps(each).encode() for name, each in files.items()}}),
        "b",
    )


def signed(made: Bundle, algorithm: str = "ES256", name: str = "ci", number: int = 0) -> Bundle:
    """The same with a signature."""
    return sign(made, key_pair(algorithm, number)[0], algorithm, name)
