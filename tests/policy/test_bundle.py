"""Bundles as values: the same bytes each time, read back as they were, refused where they are anything else; OPA itself
says what it thinks of them."""

import gzip
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from krie.errors import PolicyError
from krie.events.wire import Json
from krie.opa.entry_points import entry_points, package_of
from krie.policy.archive import MOST_PACKED, pack
from krie.policy.bundle import DATA, MANIFEST, Bundle, bundle_of, read_bundle
from krie.policy.embedded import EmbeddedEngine
from krie.policy.signature import file_digest, sign
from krie.policy.sources import PolicyFile, PolicySources, read_sources

ROOT = Path(__file__).parents[2]
OPA = ROOT / ".cache/tools/opa"
SHIPPED = [ROOT / "policies" / each for each in ("agent", "cfi", "runtime_integrity", "smep_smap", "syscall_table")]
SOURCES = read_sources(SHIPPED, {"executables": {"apt": "/usr/bin/apt"}})
SITE = 'package krie.site\n\nrules contains {"id": "SITE", "action": "log"} if input.event.kind == "a.b"\n'
ODD: dict[str, Json] = {
    "\u2028a<b>&\x7f\x08\x0c\x01": [1.0, 1e16, 1e-7, 10**20, True, None, 'é€😀\u2029"\\/'],
    "Z": 1,
    "é": 2,
    "😀": 3,
}
SECRET = b"0123456789abcdef0123456789abcdef"


def opa(*arguments: object, document: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [OPA, *map(str, arguments)], input=document, capture_output=True, text=True, timeout=60, check=False
    )


def members(files: dict[str, bytes]) -> bytes:
    return pack(files)


def tar(*entries: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for each in entries:
            if isinstance(each, tuple):
                entry = tarfile.TarInfo(each[0])
                entry.size = len(each[1])
                archive.addfile(entry, io.BytesIO(each[1]))
            else:
                archive.addfile(each)
    return gzip.compress(written.getvalue())


def entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


def refused(raw: bytes) -> str:
    with pytest.raises(PolicyError) as caught:
        read_bundle(raw, "x.tar.gz")
    assert str(caught.value).startswith("x.tar.gz")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    return str(caught.value)


def test_the_same_sources_give_the_same_bytes_wherever_they_lie(tmp_path: Path) -> None:
    elsewhere = []
    for folder in reversed(SHIPPED):
        copied = tmp_path / folder.name
        copied.mkdir()
        elsewhere.append(copied)
        for file in sorted(folder.iterdir(), reverse=True):
            if file.is_file():
                (copied / file.name).write_bytes(file.read_bytes())
    raw = bundle_of(SOURCES).to_bytes()
    again = read_sources(elsewhere, {"executables": {"apt": "/usr/bin/apt"}})
    assert bundle_of(again).to_bytes() == raw


def test_what_is_read_back_is_what_was_written() -> None:
    made = bundle_of(SOURCES)
    read = read_bundle(made.to_bytes(), "site.tar.gz")
    assert read.files == made.files
    assert read.manifest == made.manifest
    assert read.revision == made.revision == made.manifest.revision == SOURCES.revision
    assert read.sources.data == SOURCES.data
    assert {each.text for each in read.sources.files} == {each.text for each in SOURCES.files}
    assert "site.tar.gz/agent/agent.rego" in {each.place for each in read.sources.files}
    assert read.sources.data_places["protected_sysctls"] == "site.tar.gz/data.json"
    assert bundle_of(read.sources).to_bytes() == made.to_bytes()


def test_the_embedded_engine_takes_it() -> None:
    read = EmbeddedEngine(read_bundle(bundle_of(SOURCES).to_bytes(), "site.tar.gz").sources)
    direct = EmbeddedEngine(SOURCES)
    assert [each.id for each in read.rules] == [each.id for each in direct.rules]
    assert read.revision == direct.revision


def test_a_revision_tells_any_change_apart() -> None:
    texts = [replace(each, text=each.text + "\n") if "bpf" in each.place else each for each in SOURCES.files]
    revisions = {
        bundle_of(SOURCES).revision,
        bundle_of(replace(SOURCES, files=tuple(texts))).revision,
        bundle_of(replace(SOURCES, files=SOURCES.files[1:])).revision,
        bundle_of(replace(SOURCES, data={**SOURCES.data, "more": 1})).revision,
    }
    assert len(revisions) == 4


def test_folders_and_files_of_one_name_stay_apart(tmp_path: Path) -> None:
    for number in ("1", "2"):
        (tmp_path / number / "site").mkdir(parents=True)
        (tmp_path / number / "site/a b.rego").write_text(SITE.replace("site", f"s{number}").replace("SITE", number))
    (tmp_path / "1/site/a_b.rego").write_text(SITE.replace("site", "s1").replace("SITE", "3"))
    sources = read_sources([tmp_path / "1/site", tmp_path / "2/site"], {})
    bundle = bundle_of(sources)
    assert {each for each in bundle.files if "krie-" not in each} == {
        "site/a_b.rego",
        "site/a_b-2.rego",
        "site-2/a_b.rego",
        "data.json",
        ".manifest",
    }
    assert len(EmbeddedEngine(read_bundle(bundle.to_bytes(), "x").sources).rules) == 3


def test_the_package_of_the_entry_points_is_krie_s_own() -> None:
    mine = PolicyFile("/etc/mine.rego", "# mine\npackage krie.decision\n")
    with pytest.raises(PolicyError, match=r"^/etc/mine.rego:1: package krie.decision is KRIe's own"):
        bundle_of(PolicySources((mine,), {}, ""))


@pytest.mark.parametrize(
    ("text", "package"),
    [
        ("package a", ("a",)),
        ("\n# package b\n  package a.b_2 # c", ("a", "b_2")),
        ('package krie["smep smap"].more', ("krie", "smep smap", "more")),
        ("pakage a", None),
        ("", None),
        ("x := 1\npackage a", None),
    ],
)
def test_whose_package_a_module_is(text: str, package: tuple[str, ...] | None) -> None:
    assert package_of(text) == package


def test_opa_answers_by_it_what_the_engine_answers(tmp_path: Path) -> None:
    (tmp_path / "b.tar.gz").write_bytes(bundle_of(SOURCES).to_bytes())
    inputs: list[dict[str, object]] = [
        {"event": {"kind": "runtime_integrity.cred_tamper"}},
        {"event": {"kind": "none"}},
        {"event": {"kind": "krie.loss", "cause": "ring_full"}, "process": {}},
    ]
    packages = [each.name for each in EmbeddedEngine(SOURCES).packages]
    batch = {"batch": [{"n": n, "packages": packages, "input": each} for n, each in enumerate(inputs)]}
    answer = opa("eval", "-b", tmp_path / "b.tar.gz", "-I", "data.krie.decision.batch", document=json.dumps(batch))
    found = json.loads(answer.stdout)["result"][0]["expressions"][0]["value"]
    engine = EmbeddedEngine(SOURCES)
    assert found == [
        {
            "n": n,
            "fired": {each.name: json.loads(engine.answer(each, json.dumps(document))) for each in engine.packages},
        }
        for n, document in enumerate(inputs)
    ]
    assert found[0]["fired"]["data.krie.runtime_integrity"] != []


def test_entry_points_pass_opa_s_formatter_and_its_strict_check(tmp_path: Path) -> None:
    for name, text in entry_points([each.text for each in SOURCES.files]).items():
        (tmp_path / name).write_text(text)
        assert opa("fmt", "--list", "--fail", tmp_path / name).returncode == 0
    (tmp_path / "b.tar.gz").write_bytes(bundle_of(SOURCES).to_bytes())
    checked = opa("check", "--strict", "-b", tmp_path / "b.tar.gz")
    assert checked.returncode == 0, checked.stderr


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
        (SECRET, "none", "none is none of RS256"),
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
    with pytest.raises(PolicyError, match="it is no private key in PEM"):
        sign(bundle_of(SOURCES), public, algorithm)


GOOD = {"site/a.rego": SITE.encode(), "data.json": b"{}", MANIFEST: b'{"revision": "1", "roots": ["krie"]}'}


def test_a_small_bundle_of_somebody_else() -> None:
    found = read_bundle(members({**GOOD, "krie/more/data.json": b'{"a": 1}'}), "x.tar.gz")
    assert (found.revision, found.sources.data) == ("1", {"krie": {"more": {"a": 1}}})
    assert [each.place for each in found.sources.files] == ["x.tar.gz/site/a.rego"]
    without = read_bundle(members({"a.rego": SITE.encode()}), "x.tar.gz")
    assert without.manifest.roots == [""]
    assert len(without.revision) == 16


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"site/a_test.rego": b"package krie.site_test\n"}, "holds .rego files, data.json and .manifest: no tests"),
        ({"data.yaml": b"a: 1\n"}, "no YAML"),
        ({"policy.wasm": b"\0asm"}, "x.tar.gz/policy.wasm"),
        ({"patch.json": b'{"data": []}'}, "patch.json: a bundle for KRIe holds"),
        ({"README": b"hello"}, "README: a bundle for KRIe holds"),
        ({"data.json": b"[]"}, "must hold one JSON object"),
        ({"data.json": b'{"krie": 1, "krie": 2}'}, "x.tar.gz/data.json:1:13: the key"),
        ({"data.json": b'{"krie": NaN}'}, "NaN is no number"),
        ({"data.json": b"[" * 1000}, "nested deeper than 100"),
        ({"data.json": b'{"krie": 1}', "krie/data.json": b"{}"}, "data.krie is set by another file too"),
        ({"data.json": b'{"krie": {"a": 1}}', "krie/data.json": b'{"a": 2}'}, "data.krie.a is set by another file"),
        ({"data.json": b'{"other": 1}'}, "data.other is outside of the manifest's roots"),
        ({"b.rego": b"package other\n"}, "b.rego:1: package other is outside of the manifest's roots"),
        ({"b.rego": b"rules := 1\n"}, "b.rego:1: does not begin with its package"),
        ({"b.rego": b"package krie.b\n\xff"}, "b.rego: is no UTF-8 text"),
        ({"b.rego": b"package krie.b\nx := " + b"[" * 30}, "nested deeper than 12"),
        ({MANIFEST: b'{"rego_version": 0}'}, ".manifest: rego_version: "),
        ({MANIFEST: b'{"file_rego_versions": {"/a.rego": 0}}'}, "file_rego_versions names a version other than 1"),
        ({MANIFEST: b'{"wasm": []}'}, ".manifest: wasm: "),
        ({MANIFEST: b'{"revision": 5}'}, ".manifest: revision: "),
        ({MANIFEST: json.dumps({"revision": "x" * 65}).encode()}, ".manifest: revision: "),
        ({MANIFEST: b"[]"}, ".manifest: it: "),
        ({MANIFEST: b'{"roots": []}'}, "site/a.rego:1: package krie.site is outside of the manifest's roots []"),
        ({MANIFEST: b'{"roots": ["krie/other"]}'}, "package krie.site is outside"),
        ({MANIFEST: b'{"roots": ["krie", "krie/site"]}'}, "roots overlap"),
        ({MANIFEST: b'{"roots": ["krie/site", "krie"]}'}, "roots overlap"),
        ({MANIFEST: b'{"roots": ["krie", "krie/"]}'}, "roots overlap"),
        ({MANIFEST: b'{"roots": ["", "a"]}'}, "roots overlap"),
    ],
)  # fmt: skip
def test_what_opa_would_read_otherwise_is_refused(files: dict[str, bytes], problem: str) -> None:
    assert problem in refused(members({**GOOD, **files}))


def bomb() -> bytes:
    return gzip.compress(bytes(200 << 20), 1)


def chain() -> bytes:
    """Extended headers without end, each about the next."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 0
    return gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) * 20_000)


def sparse() -> bytes:
    header = tarfile.TarInfo("a.rego")
    header.pax_headers = {"GNU.sparse.size": str(1 << 40), "GNU.sparse.map": "0,0", "GNU.sparse.numblocks": "1"}
    return gzip.compress(header.tobuf(tarfile.PAX_FORMAT) + bytes(1024))


def old_sparse() -> bytes:
    """An old sparse header of GNU's which says that its map goes on, at the end of the archive."""
    header = tarfile.TarInfo("a.rego")
    header.type = tarfile.GNUTYPE_SPARSE
    raw = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    raw[482] = 1
    raw[148:156] = b" " * 8  # as which its checksum counts
    raw[148:156] = b"%06o\0 " % sum(raw)
    return gzip.compress(raw)


def quotes() -> bytes:
    """Any of these quotes could begin a text which goes on to the end of the line."""
    return members({"a.rego": b"package a\n" + b'"a\\' * 40_000, MANIFEST: b'{"roots": ["b"]}'})


def many_roots() -> bytes:
    roots = [*(f"z{number}/x" for number in range(4095)), "a"]
    data = {"a": dict.fromkeys(map(str, range(40_000)), 0), "b": 0}
    return members({MANIFEST: json.dumps({"roots": roots}).encode(), DATA: json.dumps(data).encode()})


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (lambda: b"", "is cut off"),
        (lambda: b"no gzip", "is no bundle, which is a gzipped tar"),
        (lambda: gzip.compress(b"no tar" * 200), "is no bundle"),
        (lambda: members(GOOD)[:-20], "is cut off"),
        (lambda: members(GOOD) + b"x", "has 1 bytes behind its end"),
        (lambda: members(GOOD) + members(GOOD), "bytes behind its end"),
        (lambda: bytes(MOST_PACKED + 1), "is larger than 16 MiB"),
        (bomb, "unpacks to more than"),
        (lambda: tar(("a.rego", SITE.encode()), ("a.rego", SITE.encode())), "a.rego is in it twice"),
        (lambda: tar(("a.rego", SITE.encode()), ("/a.rego", SITE.encode())), "a.rego is in it twice"),
        (lambda: tar(("a.rego", SITE.encode()), ("./a.rego", SITE.encode())), "a.rego is in it twice"),
        (lambda: tar(("a.rego", b""), ("a.rego/b.rego", b"")), "a.rego is a file and a folder"),
        (lambda: tar(("../a.rego", b"")), "called ../a.rego, which is no plain path"),
        (lambda: tar(("a/../../b.rego", b"")), "no plain path"),
        (lambda: tar(("a//b.rego", b"")), "no plain path"),
        (lambda: tar(("a\\b.rego", b"")), "no plain path"),
        (lambda: tar(("a\nb.rego", b"")), "no plain path"),
        (lambda: tar(("a/" * 300 + "b.rego", b"")), "no plain path"),
        (lambda: tar(("", b"")), "no bundle|holds .rego files"),
        (lambda: tar(entry("a.rego", tarfile.SYMTYPE, "/etc/shadow")), "is no regular file"),
        (lambda: tar(("b.rego", b""), entry("a.rego", tarfile.LNKTYPE, "b.rego")), "is no regular file"),
        (lambda: tar(entry("a.rego", tarfile.CHRTYPE)), "is no regular file"),
        (lambda: tar(entry("a.rego", tarfile.FIFOTYPE)), "is no regular file"),
        (lambda: tar(*(entry(f"d{number}", tarfile.DIRTYPE) for number in range(4097))), "more than 4096 members"),
        (lambda: gzip.compress(tarfile.TarInfo("d").tobuf() * 70_000 + bytes(1024)), "is in it twice|unpacks"),
        (chain, "is no bundle|unpacks"),
        (sparse, "is no regular file|is no bundle"),
        (old_sparse, "is no bundle"),
        (quotes, "package a is outside"),
        (many_roots, "data.b is outside"),
        (lambda: tar(("a\udcff.rego", b"")), r"called a\\xff.rego, which is no plain path"),
        (lambda: tar(("a\u202e.rego", b"")), r"called a\\u202e.rego, which is no plain path"),
    ],
)
def test_a_hostile_archive_is_refused_in_one_line_and_quickly(raw: Callable[[], bytes], problem: str) -> None:
    import re
    import time

    made = raw()
    started = time.process_time()
    assert re.search(problem, refused(made))
    assert time.process_time() - started < 5


def test_what_is_cut_off_anywhere_or_has_a_flipped_bit_raises_nothing_else() -> None:
    whole = gzip.decompress(bundle_of(SOURCES).to_bytes())
    for at in range(0, 6000, 7):
        for raw in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]):
            try:
                found = read_bundle(gzip.compress(raw, 1), "x.tar.gz")
            except PolicyError:
                continue
            assert isinstance(found, Bundle)
