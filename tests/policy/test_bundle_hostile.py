"""Archives that are anything else than a bundle are refused, in one line and quickly."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable

import pytest
from krie.errors import PolicyError
from krie.policy.archive import MOST_PACKED, pack
from krie.policy.bundle import DATA, MANIFEST, Bundle, bundle_of, read_bundle

from .shipped import SITE, SOURCES


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
        ({"data.json": b'{"krie": NaN}'}, "NaN is not a JSON number"),
        ({"data.json": b"[" * 1000}, "nested deeper than 100"),
        ({"data.json": b'{"krie": 1}', "krie/data.json": b"{}"}, "data.krie is set by another file too"),
        ({"data.json": b'{"krie": {"a": 1}}', "krie/data.json": b'{"a": 2}'}, "data.krie.a is set by another file"),
        ({"data.json": b'{"other": 1}'}, "data.other is outside of the manifest's roots"),
        ({"b.rego": b"package other\n"}, "b.rego:1: package other is outside of the manifest's roots"),
        ({"b.rego": b"rules := 1\n"}, "b.rego:1: does not begin with its package"),
        ({"b.rego": b"package krie.b\n\xff"}, "b.rego: is not UTF-8"),
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
        (lambda: b"no gzip", "is not a bundle, which is a gzipped tar"),
        (lambda: gzip.compress(b"no tar" * 200), "is not a bundle"),
        (lambda: members(GOOD)[:-20], "is cut off"),
        (lambda: members(GOOD) + b"x", "has 1 bytes behind its end"),
        (lambda: members(GOOD) + members(GOOD), "bytes behind its end"),
        (lambda: bytes(MOST_PACKED + 1), "is larger than 16 MiB"),
        (bomb, "unpacks to more than"),
        (lambda: tar(("a.rego", SITE.encode()), ("a.rego", SITE.encode())), "a.rego is in it twice"),
        (lambda: tar(("a.rego", SITE.encode()), ("/a.rego", SITE.encode())), "a.rego is in it twice"),
        (lambda: tar(("a.rego", SITE.encode()), ("./a.rego", SITE.encode())), "a.rego is in it twice"),
        (lambda: tar(("a.rego", b""), ("a.rego/b.rego", b"")), "a.rego is a file and a folder"),
        (lambda: tar(("../a.rego", b"")), "called ../a.rego, which is not a plain path"),
        (lambda: tar(("a/../../b.rego", b"")), "not a plain path"),
        (lambda: tar(("a//b.rego", b"")), "not a plain path"),
        (lambda: tar(("a\\b.rego", b"")), "not a plain path"),
        (lambda: tar(("a\nb.rego", b"")), "not a plain path"),
        (lambda: tar(("a/" * 300 + "b.rego", b"")), "not a plain path"),
        (lambda: tar(("", b"")), "not a bundle|holds .rego files"),
        (lambda: tar(entry("a.rego", tarfile.SYMTYPE, "/etc/shadow")), "is not a regular file"),
        (lambda: tar(("b.rego", b""), entry("a.rego", tarfile.LNKTYPE, "b.rego")), "is not a regular file"),
        (lambda: tar(entry("a.rego", tarfile.CHRTYPE)), "is not a regular file"),
        (lambda: tar(entry("a.rego", tarfile.FIFOTYPE)), "is not a regular file"),
        (lambda: tar(*(entry(f"d{number}", tarfile.DIRTYPE) for number in range(4097))), "more than 4096 members"),
        (lambda: gzip.compress(tarfile.TarInfo("d").tobuf() * 70_000 + bytes(1024)), "is in it twice|unpacks"),
        (chain, "is not a bundle|unpacks"),
        (sparse, "is not a regular file|is not a bundle"),
        (old_sparse, "is not a bundle"),
        (quotes, "package a is outside"),
        (many_roots, "data.b is outside"),
        (lambda: tar(("a\udcff.rego", b"")), r"called a\\xff.rego, which is not a plain path"),
        (lambda: tar(("a\u202e.rego", b"")), r"called a\\u202e.rego, which is not a plain path"),
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
