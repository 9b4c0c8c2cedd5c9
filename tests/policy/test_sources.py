"""What is read of folders of policies: whose a package is, what is JSON, and how deep anything may be nested."""

import json
import tracemalloc
from pathlib import Path

import pytest
from krie.errors import PolicyError
from krie.policy.embedded import EmbeddedEngine
from krie.policy.json_text import MOST_DEPTH, read_json
from krie.policy.nesting import MOST_BRACKETS, MOST_COLLECTIONS, check_text
from krie.policy.snapshot import stamp_of
from krie.policy.sources import PolicyFile, PolicySources, read_sources

ROOT = Path(__file__).parents[2]
SHIPPED = [ROOT / "policies/agent", ROOT / "policies/runtime_integrity", ROOT / "policies/smep_smap"]
RULE = 'package krie.{}\n\nrules contains {{"id": "{}", "action": "log"}} if input.event.kind == "a.b"\n'


def load(folder: Path, **files: str) -> EmbeddedEngine:
    """The shipped policies with a folder of these files: `name__ext`."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return EmbeddedEngine(read_sources([*SHIPPED, folder], {"executables": {}}))


@pytest.mark.parametrize(
    "data",
    [
        {"krie": {"runtime_integrity": {"rules": []}}},
        {"krie": {"runtime_integrity": {"takes_control": False}}},
        {"krie": {"smep_smap": None}},
        {"krie": {"mine": {"limit": 5}}},
        {"krie": {}},
        {"krie": 1},
    ],
    ids=json.dumps,
)
def test_data_where_packages_are_is_refused_with_its_file(data: object, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=rf"^{tmp_path}/x/d.json: data.krie would take the place of package krie\."):
        load(tmp_path / "x", d__json=json.dumps(data))


def test_data_beside_packages_is_fine(tmp_path: Path) -> None:
    load(tmp_path / "x", d__json='{"krie_site": 1, "runtime_integrity": {"rules": []}, "rules": []}')


@pytest.mark.parametrize(
    ("package", "other"),
    [
        ("krie.runtime_integrity", "krie.runtime_integrity"),
        ("krie.agent", "krie.agent"),
        ("krie.runtime_integrity.takes_control", "krie.runtime_integrity"),
        ('krie["smep_smap"].more', "krie.smep_smap"),
    ],
)
def test_nobody_adds_to_a_package_of_another_folder(package: str, other: str, tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        load(tmp_path / "x", a__rego=f"# mine\npackage {package}\n\ntakes_control := 5\n")
    assert str(caught.value).startswith(f"{tmp_path}/x/a.rego:2: package krie.")
    assert f"touches {other} of {ROOT}/policies/{other.removeprefix('krie.')} ({ROOT}/policies/" in str(caught.value)


def test_two_folders_of_the_configuration_have_a_package_each(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.rego").write_text(RULE.format("site", name))
    with pytest.raises(
        PolicyError, match=r"two.rego:1: package krie.site is or touches krie.site of .*/one \(.*one.rego:1\)"
    ):
        read_sources_and_compile(tmp_path)
    (tmp_path / "two/two.rego").write_text(RULE.format("more", "two"))
    assert len(read_sources_and_compile(tmp_path).rules) == 2


def read_sources_and_compile(tmp_path: Path) -> EmbeddedEngine:
    return EmbeddedEngine(read_sources([tmp_path / "one", tmp_path / "two"], {}))


def test_one_folder_may_have_several_files_and_packages_below_each_other(tmp_path: Path) -> None:
    made = load(
        tmp_path / "x",
        a__rego=RULE.format("site", "A"),
        b__rego=RULE.format("site", "B"),
        c__rego=RULE.format("site.more", "C"),
    )
    assert {"A", "B", "C"} <= {rule.id for rule in made.rules}


def test_a_rule_where_a_package_is_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"x/a.rego:2: rule more is where package krie.site.more \(.*c.rego:1\) is"):
        load(tmp_path / "x", a__rego="package krie.site\nmore := 1\n", c__rego=RULE.format("site.more", "C"))


def test_the_configuration_may_not_name_data_krie_either() -> None:
    with pytest.raises(PolicyError, match="^data: data.krie would take the place of package krie.site"):
        EmbeddedEngine(PolicySources((PolicyFile("p.rego", RULE.format("site", "A")),), {"krie": {}}, ""))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": NaN}', "d.json:1:7: is not valid JSON: NaN is not a JSON number; write a number, or null"),
        ('{"a": [1,\n  Infinity]}', "d.json:2:3: is not valid JSON: Infinity is not a JSON number"),
        ('{"a": -Infinity}', "d.json:1:7: is not valid JSON: -Infinity is not a JSON number"),
        ('{"a": 1e400}', "d.json:1:7: the number 1e400 is too large; write it as text"),
        ('{"a": -1e999}', "d.json:1:7: the number -1e999 is too large"),
        ('{"a": ' + "9" * 5000 + "}", "d.json:1:7: the number 9999999999999999... is too large"),
        (
            '{"a": 1,\n "b": {"c": 2, "c": 3}}',
            'd.json:2:16: the key "c" exists already in this object; keep one of them',
        ),
        ('{"a": 1, "\\u0061": 2}', 'd.json:1:10: the key "\\u0061" exists already'),
        ('{"x": [{"a": 1}, {"a": 1}], "x": 1}', 'd.json:1:29: the key "x" exists already'),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, f"d.json:1:{5 * MOST_DEPTH + 1}: is nested deeper than 100 levels"),
        ("[" * 100_000, "d.json:1:101: is nested deeper than 100 levels; make the data flatter"),
        ('{"a": ["\\ud800"]}', "d.json:1:8: holds half of a surrogate pair"),
        ('{"a\\udfffb": 1}', "d.json:1:2: holds half of a surrogate pair"),
        ('{"a": 1', "d.json:1:8: is not valid JSON: "),
        ('{"a": "\n"}', "d.json:1:8: is not valid JSON: "),
        ('{"a": 01}', "d.json:1:8: is not valid JSON: "),
        ("nothing", "d.json:1:1: is not valid JSON: "),
        ("", "d.json:1:1: is not valid JSON: "),
    ],
)
def test_what_is_no_json_is_told_with_its_place(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        read_json(text, "d.json")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "NaN", "b": "\\"a\\": 1, \\"a\\": 2"}',
        '{"a": {"a": {"a": [{"a": 1}, {"a": 2}]}}}',
        '"x"',
        "[]",
        "1e300",
        "-0.5",
        '"\\ud83d\\ude00"',
    ],
)
def test_what_is_json(text: str) -> None:
    assert read_json(text, "d.json") == json.loads(text)


def test_nan_in_a_folder_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=rf"^{tmp_path}/x/d.json:2:9: is not valid JSON: NaN"):
        load(tmp_path / "x", d__json='{\n"mine": NaN}')


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("x := " + "[" * 30 + "]" * 30, f"1:{6 + MOST_COLLECTIONS}"),
        ("x := 1\ny := " + '{"a":\n' * 30, f"{2 + MOST_COLLECTIONS}:1"),
        ("x := " + "f(" * 300, f"1:{7 + 2 * MOST_BRACKETS}"),
        ("x := " + "[{" * 30, f"1:{6 + MOST_COLLECTIONS}"),
    ],
    ids=["arrays", "objects", "calls", "both"],
)
def test_deep_text_is_refused_before_it_is_parsed(text: str, place: str) -> None:
    with pytest.raises(PolicyError, match=f"^p.rego:{place}: is nested deeper than .*; break it into helper rules"):
        check_text(text, "p.rego")


def test_brackets_in_texts_and_comments_do_not_count() -> None:
    deep = "[" * 200
    check_text(f'# {deep}\nx := "{deep}\\"{deep}"\ny := `{deep}`\nz := {"[]" * 200}\n', "p.rego")
    for file in (*ROOT.glob("policies/**/*.rego"), *ROOT.glob("examples/**/*.rego")):
        check_text(file.read_text(), str(file))


@pytest.mark.parametrize("content", ["x", "\\n", "\\\\"])
def test_a_long_text_takes_no_more_memory_than_it_has(content: str) -> None:
    """A few times: what reads it holds others' bytes, and may be the agent."""
    long = '"' + content * ((1 << 20) // len(content)) + '"'
    tracemalloc.start()
    try:
        read_json(f'{{"a": {long}}}', "data.json")
        check_text(f"x := {long}", "p.rego")
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_a_few_links_do_not_make_millions_of_folders(tmp_path: Path) -> None:
    for number in range(31):
        (tmp_path / f"{number}").mkdir()
    for number in range(30):
        for name in "ab":
            (tmp_path / f"{number}" / name).symlink_to(f"../{number + 1}")
    assert "which is read already" in str(stamp_of([tmp_path / "0"]))


@pytest.mark.parametrize(("character", "shown"), [("\0", "a null character"), ("\ufeff", "a byte-order mark")])
@pytest.mark.parametrize("text", ["u := 1\n%s\n", 'u := 1\n"%s"\n', "u := 1\n# %s\n"])
def test_characters_that_opa_reads_nowhere(text: str, character: str, shown: str) -> None:
    with pytest.raises(PolicyError, match=rf"^p.rego:2:[123]: holds {shown}; drop it$"):
        check_text(text % character, "p.rego")


LIB = {
    "a__rego": 'package krie.lib\nrules contains {"id": "B", "action": "log"} if input.event.x == "b"\n\none if true\n',
    "b__rego": """package krie.lib

rules contains {"id": "A", "action": "log"} if {
	input.event.kind == "a.b"
	helper
}

helper if input.process.uid == 1
""",
}
READS = """package krie.reads

%s

rules contains {"id": "C", "action": "kill"} if {
	input.event.kind == "a.b"
	%s
}
"""


@pytest.mark.parametrize(
    ("imported", "condition"),
    [
        ("import data.krie.lib", "count(lib.rules) == 1"),
        ("import data.krie.lib as l", "count(l.rules) == 1"),
        ("import data.krie.lib", 'some rule in lib.rules\n\trule.id == "A"'),
        ("import data.krie.lib", 'count(lib["rules"]) == 1'),
        ("import data.krie.lib", "count(lib) > 1"),
        ("import data.krie.lib", "n := 1\n\tcount({x | some x in lib.rules}) == n"),
    ],
)
def test_what_the_engine_reads_wrongly_through_an_import_is_refused(
    imported: str, condition: str, tmp_path: Path
) -> None:
    with pytest.raises(PolicyError) as caught:
        load(tmp_path / "x", **LIB, c__rego=READS % (imported, condition))
    assert str(caught.value).startswith(f"{tmp_path}/x/c.rego:5: reads data.krie.lib.rules through an import")
    assert str(caught.value).endswith("write data.krie.lib.rules in full")


@pytest.mark.parametrize(
    ("imported", "condition"),
    [
        ("", "count(data.krie.lib.rules) == 1"),
        ("import data.krie.lib.rules as r", "count(r) == 1"),
        ("import data.krie.lib", "lib.helper"),
        ("import data.krie.lib", "lib.one\n\tlib.helper"),
        ("import data.krie.lib", "count(data.krie.lib.rules) == 1\n\tlib.helper"),
    ],
)
def test_what_it_reads_rightly_decides_rightly(imported: str, condition: str, tmp_path: Path) -> None:
    engine = load(tmp_path / "x", **LIB, c__rego=READS % (imported, condition))
    (reads,) = (each for each in engine.packages if each.name == "data.krie.reads")
    for uid in (1, 2):
        document = json.dumps({"event": {"kind": "a.b"}, "process": {"uid": uid}})
        assert [each.id for each in engine.evaluate([reads], document)[0]] == ["C"] * (uid == 1)  # type: ignore[union-attr]
