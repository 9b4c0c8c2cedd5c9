"""Signatures of bundles: what is accepted, what is refused, and that OPA says the same."""

import base64
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from krie.errors import ConfigError, PolicyError
from krie.policy.bundle import Bundle, read_bundle
from krie.policy.pinned import VerificationKey, read_keys
from krie.policy.serial import refused_for_age, serial_of, with_serial
from krie.policy.signature import ALGORITHMS
from krie.policy.verification import SignatureRefused, verify
from krie.services_config import PinnedKey

from .bundles import bundle, key_pair, pinned, signed

OPA = Path(__file__).parents[2] / ".cache/tools/opa"
RULES = 'package krie.site\n\nrules contains {"id": "S1", "action": "log"} if input.event.kind == "x"\n'
MADE = bundle(RULES, text="é  \u2028 \x01 \U0001f600 </a>", numbers=[1, -0.0, 1e30, 2.50], deep={"b": [], "a": {}})
SIGNED = signed(MADE)
ALL_KINDS = ["HS256", "RS256", "PS384", "ES256", "ES384", "ES512"]


def opa(*arguments: object, folder: Path) -> None:
    done = subprocess.run(
        [str(OPA), *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout


def claims_of(made: Bundle) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(
        json.loads(made.signatures)["signatures"][0], options={"verify_signature": False}
    )
    return claims


def with_token(made: Bundle, *tokens: object, **more: object) -> Bundle:
    return made.signed(json.dumps({"signatures": tokens, **more}).encode())


def changed(change: Callable[[dict[str, Any]], object]) -> Bundle:
    """A signature whose claims were changed, by the same key."""
    claims = claims_of(SIGNED)
    change(claims)
    return with_token(MADE, jwt.encode(claims, key_pair("ES256")[0], "ES256", headers={"kid": "ci"}))


@pytest.mark.parametrize("algorithm", ALL_KINDS)
def test_what_is_signed_here_is_accepted_here(algorithm: str) -> None:
    said = verify(signed(MADE, algorithm), pinned(algorithm))
    assert (said.key_id, said.expires) == ("ci", None)


@pytest.mark.parametrize("algorithm", ALL_KINDS)
def test_what_opa_signs_is_accepted_here(algorithm: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name, content in MADE.files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    (tmp_path / "key").write_bytes(key_pair(algorithm)[0])
    key = ("--signing-alg", algorithm, "--signing-key")
    opa("build", "-b", "source", "-o", "b.tar.gz", *key, "key", folder=tmp_path)
    built = read_bundle((tmp_path / "b.tar.gz").read_bytes(), "b")
    assert verify(built, pinned(algorithm)).key_id == "ci"
    assert serial_of(built) == 1
    with pytest.raises(SignatureRefused, match=r"not by the pinned key"):
        verify(built, pinned(algorithm, number=1))
    opa("sign", "-b", ".", *key, "../key", folder=source)
    assert verify(MADE.signed((source / ".signatures.json").read_bytes()), pinned(algorithm)).key_id == "ci"


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"site/site.rego": b"package krie.site"}, "its hash is another"),
        ({"site/more.rego": b"package krie.more"}, "'site/more.rego' is not covered"),
        ({"site/site.rego": None}, "'site/site.rego' is covered by the signature and not there"),
        ({".manifest": MADE.files[".manifest"].replace(b"r1", b"r2")}, "its hash is another"),
        ({"data.json": b"{}"}, "its hash is another"),
    ],
)
def test_a_changed_bundle_is_refused(files: dict[str, bytes | None], why: str) -> None:
    made = {name: content for name, content in {**SIGNED.files, **files}.items() if content is not None}
    with pytest.raises(SignatureRefused, match=why):
        verify(replace(SIGNED, files=made), pinned())


def test_white_space_of_data_does_not_matter() -> None:
    data = json.dumps(json.loads(MADE.files["data.json"], parse_float=str, parse_int=str)).encode()
    assert data != MADE.files["data.json"]  # numbers became texts
    spaced = MADE.files["data.json"].replace(b": ", b" :\n")
    assert verify(replace(SIGNED, files={**SIGNED.files, "data.json": spaced}), pinned()).key_id == "ci"
    with pytest.raises(SignatureRefused):
        verify(replace(SIGNED, files={**SIGNED.files, "data.json": data}), pinned())


@pytest.mark.parametrize(
    ("signatures", "why"),
    [
        (b"", "is not signed"),
        (b"\xff", "not UTF-8"),
        (b"{", "is not valid JSON"),
        (b"[]", "no JSON object"),
        (b"[" * 100000, "nested deeper"),
        (b'{"signatures": []}', "must hold one"),
        (b'{"signatures": ["a.b.c", "a.b.c"]}', "must hold one"),
        (b'{"signatures": [7]}', "must hold one"),
        (b'{"signatures": ["a.b.c"]}', "not a JSON web token"),
        (b'{"signatures": ["a.b.c"], "plugin": "mine"}', "a plugin of OPA's"),
        (b'{"signatures": ["' + b"a" * (9 << 20) + b'"]}', "larger than"),
    ],
)
def test_what_is_no_signature(signatures: bytes, why: str) -> None:
    with pytest.raises(PolicyError, match=why):
        verify(MADE.signed(signatures), pinned())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda claims: claims.update(scope="other"), "for scope 'other'"),
        (lambda claims: claims.pop("files"), "lists no files"),
        (lambda claims: claims.update(files="data.json"), "lists no files"),
        (lambda claims: claims.update(files=[{"name": "data.json"}]), "no name or no hash"),
        (lambda claims: claims["files"].append(claims["files"][0]), "twice"),
        (lambda claims: claims["files"][0].update(algorithm="MD5"), "hashed by 'MD5'"),
        (lambda claims: claims["files"][0].update(algorithm=None), "hashed by None"),
        (lambda claims: claims["files"][0].update(hash="é"), "its hash is another"),
        (lambda claims: claims.update(exp="soon"), "exp of its claims"),
    ],
)
def test_signed_claims_that_make_no_sense(change: Callable[[dict[str, Any]], object], why: str) -> None:
    with pytest.raises(PolicyError, match=why):
        verify(changed(change), pinned())


def test_the_scope_and_the_time_when_it_expires() -> None:
    made = changed(lambda claims: claims.update(exp=5, scope="write"))
    assert verify(made, pinned(scope="write")).expires == 5
    with pytest.raises(SignatureRefused, match="for scope 'write', not for 'read'"):
        verify(made, pinned(scope="read"))


def _forged(header: dict[str, object], key: bytes = b"") -> Bundle:
    """A token with a header of its own, signed by HS256 where there is a key."""
    parts = [base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in (header, claims_of(SIGNED))]
    signature = b""
    if key:
        signer = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
        signature = base64.urlsafe_b64encode(signer.sign(b".".join(parts), key)).rstrip(b"=")
    return with_token(MADE, b".".join([*parts, signature]).decode())


def test_the_token_does_not_choose_how_it_is_checked() -> None:
    public = key_pair("ES256")[1]
    headers: list[dict[str, object]] = [
        {"alg": "HS256", "kid": "ci"},  # the public key taken as a secret
        {"alg": "ES256", "kid": "ci"},
        {"alg": "ES256", "kid": "ci", "jwk": {"kty": "oct", "k": "eA"}},
        {"alg": "ES256", "kid": "ci", "crit": ["x"], "x": 1},
        {"alg": "ES256", "kid": "ci", "b64": False},
    ]
    for made in (_forged({"alg": "none", "kid": "ci"}), *(_forged(header, public) for header in headers)):
        with pytest.raises(SignatureRefused):
            verify(made, pinned())


def test_a_public_key_is_no_secret() -> None:
    public = key_pair("RS256")[1]
    with pytest.raises(SignatureRefused, match="cannot be checked"):
        verify(_forged({"alg": "HS256", "kid": "ci"}, public), {"ci": VerificationKey(public, "HS256")})


def test_a_private_key_is_not_pinned(tmp_path: Path) -> None:
    """It verifies as well as the public one, and would lie on each host."""
    private, public = (tmp_path / name for name in ("private", "public"))
    for file, content in zip((private, public), key_pair("ES256"), strict=True):
        file.write_bytes(content)
    assert read_keys({"ci": PinnedKey(file=str(public), algorithm="ES256")}) == pinned()
    with pytest.raises(ConfigError, match="is a private key, by which this host could sign"):
        read_keys({"ci": PinnedKey(file=str(private), algorithm="ES256")})


def test_which_key() -> None:
    both = {**pinned("ES256", "ci"), **pinned("HS256", "old")}
    assert verify(signed(MADE, "HS256", "old"), both).key_id == "old"
    with pytest.raises(SignatureRefused, match="key 'new', which is not pinned; pinned: ci, old"):
        verify(signed(MADE, "ES256", "new"), both)
    unnamed = with_token(MADE, jwt.encode({"files": claims_of(SIGNED)["files"]}, key_pair("ES256")[0], "ES256"))
    with pytest.raises(SignatureRefused, match="names no key, and 2 are pinned"):
        verify(unnamed, both)
    for made in (unnamed, signed(MADE, "ES256", "default")):  # the one that is pinned is the one it must be by
        assert verify(made, pinned()).key_id == "ci"
    with pytest.raises(SignatureRefused, match="not by ES256, for which its key is pinned"):
        verify(signed(MADE, "HS256"), pinned())


def test_all_algorithms_are_known_to_the_library() -> None:
    assert set(ALGORITHMS) <= set(jwt.PyJWS().get_algorithms())


def test_a_serial_is_written_and_read() -> None:
    made = with_serial(SIGNED, 7)
    assert (serial_of(made), serial_of(SIGNED), serial_of(bundle(RULES, serial=None))) == (7, 1, None)
    assert not made.signatures
    assert read_bundle(made.to_bytes(), "b").manifest == made.manifest
    for wrong in (-1, 1 << 53, True):
        with pytest.raises(PolicyError, match=r"metadata\.krie\.serial must be a number"):
            with_serial(MADE, wrong)


@pytest.mark.parametrize(
    ("serial", "highest", "why"),
    [
        (None, None, ""),
        (0, None, ""),
        (5, 5, ""),
        (6, 5, ""),
        (4, 5, "is older than what was in force here: its serial is 4, and the highest was 5"),
        (None, 5, "has no serial, and one with serial 5 was in force here"),
    ],
)
def test_nothing_older_follows(serial: int | None, highest: int | None, why: str) -> None:
    assert refused_for_age(serial, highest) == why
