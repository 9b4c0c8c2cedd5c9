"""Bundles as values: the same bytes each time, read back as they were; OPA itself says what it thinks of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from krie.errors import PolicyError
from krie.opa.entry_points import entry_points, package_of
from krie.policy.bundle import bundle_of, read_bundle
from krie.policy.embedded import EmbeddedEngine
from krie.policy.sources import PolicyFile, PolicySources, read_sources

from .shipped import SHIPPED, SITE, SOURCES, opa


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
