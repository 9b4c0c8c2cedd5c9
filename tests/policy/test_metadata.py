"""METADATA as people write it: compact or by the line, and not there at all."""

from krie.policy.metadata import Metadata, metadata_above

COMPACT = """
# Something else.
# METADATA
# title: Somebody debugs: in production
# description: It is not done.
# custom: {id: SITE001, severity: medium, action: log, technique: "T1055.008", enforce: inline}
rule
"""
BY_THE_LINE = """
# METADATA
# title: Somebody debugs: in production
# description: |
#   It is
#
#   not: done.
# scope: rule
# custom:
#   id: SITE001
#   severity: medium
#   technique: T1055.008
#   seen: |
#     Nothing.
#   enforce: inline
rule
"""


def read(text: str) -> Metadata:
    lines = text.splitlines()
    return metadata_above(lines, lines.index("rule"))


def test_both_forms() -> None:
    title = "Somebody debugs: in production"
    assert read(COMPACT) == Metadata(title, "It is not done.", "medium", "T1055.008", "", inline=True)
    assert read(BY_THE_LINE) == Metadata(title, "It is not: done.", "medium", "T1055.008", "Nothing.", inline=True)


def test_none() -> None:
    assert read("# title: No METADATA\nrule") == read("# METADATA\n# title: Far\n\nrule") == read("rule") == Metadata()
