"""What KRIe signs OPA verifies, and the other way round; keys that do not fit are refused."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from krie.errors import PolicyError
from krie.events.wire import Json
from krie.policy.bundle import bundle_of, read_bundle
from krie.policy.signature import file_digest, sign

from .shipped import SOURCES, opa

ODD: dict[str, Json] = {
    "\u2028a<b>&\x7f\x08\x0c\x01": [1.0, 1e16, 1e-7, 10**20, True, None, 'é€😀\u2029"\\/'],
    "Z": 1,
    "é": 2,
    "😀": 3,
}
SECRET = b"0123456789abcdef0123456789abcdef"


def keys(folder: Path, algorithm: str) -> tuple[bytes, str]:
    """The private key's bytes, and what OPA verifies with."""
    if algorithm.startswith("HS"):
        return SECRET + b"\n", SECRET.decode()
    kind = ["genrsa", "2048"] if algorithm[:2] != "ES" else ["ecparam", "-genkey", "-name", "prime256v1", "-noout"]
    key = subprocess.run(["openssl", *kind], capture_output=True, timeout=60, check=True).stdout
    public = folder / f"{algorithm}.pub"
    subprocess.run(["openssl", "pkey", "-pubout", "-out", public], input=key, capture_output=True, check=True)
    return key, str(public)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "HS256", "PS256"])
def test_opa_verifies_what_krie_signs(tmp_path: Path, algorithm: str) -> None:
    key, public = keys(tmp_path, algorithm)
    signed = sign(bundle_of(replace(SOURCES, data={**SOURCES.data, "odd": ODD})), key, algorithm)

    def verified(raw: bytes) -> str:
        (tmp_path / "b.tar.gz").write_bytes(raw)
        built = opa(
            "build", "-b", tmp_path / "b.tar.gz", "--verification-key", public, "--signing-alg", algorithm,
            "-o", tmp_path / "out.tar.gz",
        )  # fmt: skip
        return built.stdout + built.stderr if built.returncode else ""

    assert verified(signed.to_bytes()) == ""
    assert read_bundle(signed.to_bytes(), "b").signatures == signed.signatures
    changed = {**signed.files, "agent/agent.rego": signed.files["agent/agent.rego"] + b"\n"}
    assert "digest mismatch" in verified(replace(signed, files=changed).to_bytes())
    assert "not included in bundle signature" in verified(
        replace(signed, files={**signed.files, "x/y.rego": b"package krie.y\n"}).to_bytes()
    )
    assert "missing .signatures.json" in verified(replace(signed, signatures=b"").to_bytes())
    assert sign(bundle_of(SOURCES), *keys(tmp_path, algorithm)[:1], algorithm).signatures != signed.signatures


def test_what_opa_signs_has_the_digests_that_krie_takes(tmp_path: Path) -> None:
    import jwt

    made = bundle_of(replace(SOURCES, data={**SOURCES.data, "odd": ODD}))
    (tmp_path / "b.tar.gz").write_bytes(made.to_bytes())
    raw = SECRET.decode()
    built = opa("build", "-b", tmp_path / "b.tar.gz", "--signing-key", raw, "--signing-alg", "HS256", "-r", "7",
                "-o", tmp_path / "out.tar.gz")  # fmt: skip
    assert built.returncode == 0, built.stderr
    theirs = read_bundle((tmp_path / "out.tar.gz").read_bytes(), "out.tar.gz")
    claims = jwt.decode(json.loads(theirs.signatures)["signatures"][0], raw, ["HS256"])
    listed = {each["name"]: each["hash"] for each in claims["files"]}
    assert listed == {path: file_digest(path, content) for path, content in theirs.files.items()}
    assert theirs.revision == "7"
    assert theirs.sources.data == made.sources.data


@pytest.mark.parametrize(
    ("key", "algorithm", "problem"),
    [
        (b"short", "HS256", "must have at least 32 bytes"),
        (SECRET, "RS256", "this key cannot sign by RS256"),
        (b"", "ES256", "this key cannot sign by ES256"),
        (SECRET, "none", "none is not one of RS256"),
    ],
)
def test_a_key_that_does_not_fit_is_refused(key: bytes, algorithm: str, problem: str) -> None:
    with pytest.raises(PolicyError, match=problem):
        sign(bundle_of(SOURCES), key, algorithm)


@pytest.mark.parametrize(("key", "algorithm"), [("ES256", "RS256"), ("ES256", "PS256"), ("RS256", "ES256")])
def test_a_key_of_another_kind_is_told_with_what_to_do(tmp_path: Path, key: str, algorithm: str) -> None:
    private, _ = keys(tmp_path, key)
    with pytest.raises(PolicyError, match=f"cannot sign by {algorithm}: .* choose with --algorithm$"):
        sign(bundle_of(SOURCES), private, algorithm)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256"])
def test_a_public_key_signs_nothing(tmp_path: Path, algorithm: str) -> None:
    public = Path(keys(tmp_path, algorithm)[1]).read_bytes()
    with pytest.raises(PolicyError, match="it is not a private key in PEM"):
        sign(bundle_of(SOURCES), public, algorithm)
