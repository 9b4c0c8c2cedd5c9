"""METADATA as people write it, read as `opa` reads it; what could be costly or mean two things is refused."""

import json
import subprocess
import time
from pathlib import Path

import pytest
from krie.errors import PolicyError
from krie.policy.annotations import Text, annotations_above
from krie.policy.metadata import Metadata, metadata_of

OPA = Path(__file__).parents[2] / ".cache/tools/opa"
COMPACT = """
# Something else.
# METADATA
# title: Somebody debugs, in production
# description: It is not done.
# custom: {id: SITE001, severity: medium, action: log, technique: "T1055.008", enforce: inline, seen: "a, b"}
rule
"""
BY_THE_LINE = """
# METADATA
# title: 'Somebody debugs: in production' # they say
# description: |
#   It is
#
#   not: done.
# scope: rule
# custom:
#   id: SITE001
#   severity: medium
#   technique: T1055.008
#   seen: >
#     Nothing.
#   enforce: inline
rule
"""


def read(text: str) -> Metadata:
    lines = text.splitlines()
    return metadata_of(annotations_above(lines, lines.index("rule"), "p.rego"))


def test_both_forms() -> None:
    compact = Metadata("Somebody debugs, in production", "It is not done.", "medium", "T1055.008", "a, b", inline=True)
    assert read(COMPACT) == compact
    title = "Somebody debugs: in production"
    assert read(BY_THE_LINE) == Metadata(title, "It is not: done.", "medium", "T1055.008", "Nothing.", inline=True)


@pytest.mark.parametrize(
    "value",
    [
        "inline # must",
        "'inline'",
        '"inline"',
        "'inline' # must",
        ">-\n#     inline",
        "|\n#     inline",
        '"in\\u006cine"',
        "!!str inline",
    ],
)
def test_inline_however_yaml_lets_it_be_written(value: str) -> None:
    assert read(f"# METADATA\n# custom:\n#   enforce: {value}\nrule").inline
    if "\n" not in value:
        assert read(f"# METADATA\n# custom: {{enforce: {value.partition(' #')[0]}}} # must\nrule").inline


@pytest.mark.parametrize("value", ["inlined", "'# inline'", "[inline]", "{inline: yes}", "''"])
def test_what_is_not_inline(value: str) -> None:
    assert not read(f"# METADATA\n# custom:\n#   enforce: {value}\nrule").inline


BLOCKS = {
    "none": "# title: no METADATA\n",
    "plain": "# METADATA\n# title: t\n",
    "no blank": "#METADATA\n#title: t\n",
    "two blanks": "#  METADATA\n# title: t\n",
    "colon": "# METADATA:\n# title: t\n",
    "words behind": "# METADATA of it\n# title: t\n",
    "lower case": "# metadata\n# title: t\n",
    "a blank line behind": "# METADATA\n# title: t\n\n",
    "another comment behind": "# METADATA\n# title: t\n\n# hello: [x\n",
    "a comment before": "# hello: [x\n# METADATA\n# title: t\n",
    "two scopes": "# METADATA\n# scope: document\n# title: s\n\n# METADATA\n# title: t\n",
    "two scopes in one comment": "# METADATA\n# scope: document\n# title: s\n# METADATA\n# scope: rule\n# title: t\n",
    "a scope that is none": "# METADATA\n# scope: rul\n# title: t\n",
    "a scope that cannot be here": "# METADATA\n# scope: package\n# title: t\n",
    "no scope": "# METADATA\n# scope:\n# title: t\n",
    "two of one scope by the entry point": (
        "# METADATA\n# entrypoint: true\n# title: s\n# METADATA\n# scope: document\n# title: t\n"
    ),
    "a quoted merge key": '# METADATA\n# title: t\n# custom: {"<<": {a: b}}\n',
    "comment": "# METADATA\n# title: t # must\n",
    "number": "# METADATA\n# title: 5\n",
    "boolean": "# METADATA\n# title: yes\n",
    "null": "# METADATA\n# title:\n# description: x\n",
    "unknown key": "# METADATA\n# titel: t\n",
    "quoted": "# METADATA\n# title: 'it''s'\n",
    "folded": "# METADATA\n# title: >\n#   a\n#   b\n",
    "tab": "# METADATA\n#\ttitle: t\n",
    "broken": "# METADATA\n# title: [t\n",
    "colon in text": "# METADATA\n# title: a: b\n",
    "key twice": "# METADATA\n# title: t\n# title: u\n",
    "custom key twice": "# METADATA\n# custom: {a: 1, a: 2}\n",
    "list": "# METADATA\n# - title\n",
    "custom is a list": "# METADATA\n# custom: [a]\n",
    "custom is empty": "# METADATA\n# title: t\n# custom:\n",
    "title is a map": "# METADATA\n# title: {a: b}\n",
    "empty": "# METADATA\n",
    "another column": "# METADATA\n  # title: t\n",
    "text behind": "# METADATA\n# title: t\n# enforce\n",
}


@pytest.mark.parametrize("block", BLOCKS)
def test_read_as_opa_reads_it(block: str, tmp_path: Path) -> None:
    text = f"package krie.site\n\n{BLOCKS[block]}rule if true\n"
    (tmp_path / "p.rego").write_text(text)
    seen = subprocess.run([OPA, "inspect", "-a", "-f", "json", tmp_path], capture_output=True, timeout=60)
    try:
        lines = text.splitlines()
        mine: Metadata | None = metadata_of(annotations_above(lines, lines.index("rule if true"), "p.rego"))
    except PolicyError as error:
        assert str(error).startswith("p.rego:")
        mine = None
    theirs = None
    if not seen.returncode:
        annotations = json.loads(seen.stdout).get("annotations", [])
        last = annotations[-1]["annotations"] if annotations else {}
        theirs = Metadata(" ".join(last.get("title", "").split()), last.get("description", ""))
    assert mine == theirs


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("title: [t", r"p.rego:2:10: METADATA: is not YAML: .*; quote the text"),
        ("title: a: b", r"p.rego:2:11: METADATA: is not YAML: mapping values are not allowed .*; quote the text"),
        ("title: t\n# title: u", "p.rego:3:3: METADATA: the key 'title' exists already; keep one of them"),
        ("custom: {enforce: inline, enforce: no}", "p.rego:2:29: METADATA: the key 'enforce' exists already"),
        ("title: &a t\n# description: *a", "p.rego:2:10: METADATA: anchors and aliases of YAML are refused"),
        ("a: &a {x: 1}\n# b:\n#   <<: *a", "p.rego:2:6: METADATA: anchors and aliases"),
        ("title: t\n# ---\n# title: u", "p.rego:3:3: METADATA: holds more than one YAML document"),
        ("? [a]\n# : b", "p.rego:2:5: METADATA: a key must be text"),
        ("a: " + "[" * 40 + "]" * 40, "p.rego:2:21: METADATA: is nested deeper than 16 levels"),
        # Either the library stops, from 0.2.6 on, or KRIe does.
        ("a: " + "[" * 60_000, r"p.rego:2:\d+: METADATA: (is nested deeper|is not YAML: exceeded maximum nesting)"),
        ("a: " + "x" * 70_000, "p.rego:1: METADATA: is longer than 64 KiB"),
        ("custom: text", "p.rego:1: METADATA: custom must be keys with values"),
        (
            "title: t\n# METADATA\n# title: u",
            "p.rego:3: METADATA: another block of scope rule is at p.rego:1; make one",
        ),
        (
            "title: t\n\n# Other.\n\n# METADATA\n# scope: rule\n# title: u",
            "p.rego:6: METADATA: another block of scope r",
        ),
        ("custom:\n#   <<: {enforce: inline}", r"p.rego:3:5: METADATA: a merge key \(<<\) is refused; write out"),
        ("!!merge <<: {title: t}", r"p.rego:2:3: METADATA: a merge key"),
        ("custom: {a: [{<<: {b: c}}]}", r"p.rego:2:17: METADATA: a merge key"),
        ("scope: rul", "p.rego:2:10: METADATA: scope rul does not exist; write rule or document"),
        ("scope: subpackages", "p.rego:2:10: METADATA: scope subpackages cannot be here; write rule or document"),
        ("scope: [rule]", "p.rego:1: METADATA: scope must be text"),
        ("title: \x01", "p.rego:1: METADATA: is not YAML"),
    ],
)
def test_what_is_refused_is_told_with_its_place(block: str, message: str) -> None:
    with pytest.raises(PolicyError, match=f"^{message}"):
        read(f"# METADATA\n# {block}\nrule")


def test_billion_laughs_cost_nothing() -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))]
    started = time.process_time()
    with pytest.raises(PolicyError, match="anchors and aliases"):
        read("\n".join(["# METADATA", *(f"# {line}" for line in lines), "rule"]))
    assert time.process_time() - started < 1


def test_nothing_is_built_but_text() -> None:
    block = "# METADATA\n# title: !!python/object/apply:os.getcwd []\n# description: !!binary aGVsbG8=\nrule"
    with pytest.raises(PolicyError, match="title must be text"):
        read(block)
    assert read(block.replace("[]", "x")) == Metadata("x", "aGVsbG8=")


def test_none() -> None:
    assert (
        read("# title: No METADATA\nrule") == read("# METADATA\n# title: Far\ncode\nrule") == read("rule") == Metadata()
    )


def test_a_package_has_scopes_of_its_own() -> None:
    lines = ["# METADATA", "# title: t", "# METADATA", "# scope: subpackages", "# title: u", "package krie.a"]
    read_ = annotations_above(lines, 5, "p.rego", package=True)
    assert [each.values["title"] for each in (read_, *read_.others)] == [
        Text("t", "p.rego:2:10"),
        Text("u", "p.rego:5:10"),
    ]
    with pytest.raises(
        PolicyError, match="p.rego:2:10: METADATA: scope rule cannot be here; write package or subpackages"
    ):
        annotations_above(["# METADATA", "# scope: rule", "package krie.a"], 2, "p.rego", package=True)


def test_the_rule_s_own_block_counts() -> None:
    own = "# METADATA\n# custom: {enforce: inline}\n"
    other = "# METADATA\n# scope: document\n# title: All of them.\n"
    for text in (own + other, other + own):
        assert read(f"{text}rule") == Metadata(inline=True)
    assert read(f"{other}rule") == Metadata("All of them.")
