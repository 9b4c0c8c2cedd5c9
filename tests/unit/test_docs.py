"""The documentation's tables are those of the code, and it names what there is."""

import re
from pathlib import Path

import pytest
from krie.cli.main import krie
from krie.plugin import hookspecs

from tools.docs import BLOCKS, everything, man, pages
from tools.docs.commands import every
from tools.docs.tables import every_key

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = (README, *(ROOT / f"{each}.md" for each in ("CONTRIBUTING", "examples/README", "policies/README")))
PAGES = (*PAGES, *sorted((ROOT / "docs").rglob("*.md")))
TEXT = "\n".join(each.read_text() for each in PAGES)


def test_the_tables_are_fresh() -> None:
    for page, text in pages().items():
        assert page.read_text() == text, f"{page.relative_to(ROOT)}: run `make docs`"


def test_every_table_is_somewhere() -> None:
    assert set(re.findall(r"<!-- table: (\w+) -->", TEXT)) == set(BLOCKS)


def test_manual_pages_name_everything(tmp_path: Path) -> None:
    config, plugins = everything()
    man.write(tmp_path, config, plugins)
    made = {each.name: each.read_text().replace("\\-", "-").replace("\\", "") for each in tmp_path.iterdir()}
    assert [each for each, _ in every("krie", krie) if each not in made["krie.1"]] == []
    keys = [key.rpartition(".")[2] for key, _, _ in every_key(config, plugins)]
    assert [each for each in keys if each not in made["krie.toml.5"]] == []
    assert [each for each in dir(hookspecs) if each.startswith("krie_") and each not in made["krie-plugin.7"]] == []


def test_manual_pages_have_lines_that_a_terminal_can_break(tmp_path: Path) -> None:
    man.write(tmp_path, *everything())
    words = (each for page in tmp_path.iterdir() for each in page.read_text().split())
    assert [each for each in words if len(each) > 60] == []


def test_no_command_s_help_has_marks_for_whoever_lays_it_out() -> None:
    assert [path for path, command in every("krie", krie) if "\\" in (command.help or "")] == []


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 150


def test_the_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)`", TEXT)) <= targets


def test_the_files_exist() -> None:
    named = set(re.findall(r"`((?:core|bpf|plugins|policies|tests|tools|contrib)/[\w./-]*)`", TEXT))
    assert named
    assert [each for each in sorted(named) if not (ROOT / each).exists()] == []


def test_the_way_in_the_code_leads_somewhere() -> None:
    """Each question has one file, and what to begin at is in it, or in the file that is named beside it."""
    page = (ROOT / "docs/how-to/find-your-way-in-the-code.md").read_text()
    rows = re.findall(r"^\| (?!you want)(.+?) \| `([^`]+)` \| `([^`]+)`(.*) \|$", page, re.MULTILINE)
    assert len(rows) == page.count("\n| ") - 1
    lost = [f"{question}: {file} has no {name}" for question, file, name, _ in rows if not _has(ROOT / file, name)]
    assert lost == []


def _has(file: Path, name: str) -> bool:
    return file.exists() and bool(re.search(rf"\b{re.escape(name)}\b", file.read_text()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_lead_somewhere(page: Path) -> None:
    """Also those from the README into the pages, which the site's generator does not see."""
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", _without_code(page.read_text())):
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), f"{page.relative_to(ROOT)} links to {target}"
        if anchor:
            assert anchor in _anchors(there.read_text()), f"{page.relative_to(ROOT)} links to {target}"


def _without_code(text: str) -> str:
    return re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)


def _anchors(text: str) -> set[str]:
    """As GitHub and the site make them of headings."""
    headings = re.findall(r"^#+ (.*)", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
