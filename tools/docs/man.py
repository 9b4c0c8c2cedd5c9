"""The manual pages krie(1), krie.toml(5) and krie-plugin(7), by docutils, from what the reference pages are made of."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from docutils.core import publish_string
from krie.cli.command import HERE, SYSTEM
from krie.cli.main import krie
from krie.config import Config
from krie.errors import ExitCode
from krie.plugin import hookspecs
from krie.plugin.manager import Plugins
from krie.version import version

from .api import signature
from .commands import every, options, paragraphs, usage
from .tables import every_key

Blocks = Iterator[str]


def write(folder: Path, config: Config, plugins: Plugins) -> None:
    """Make the three pages in this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        "krie.1": ("detects Linux kernel exploits and kernel tampering with BPF", "User Commands", _commands()),
        "krie.toml.5": ("configuration of KRIe", "File Formats", _configuration(config, plugins)),
        "krie-plugin.7": ("how plugins of KRIe are made", "Miscellaneous", _plugin()),
    }
    for file, (what, group, blocks) in pages.items():
        (folder / file).write_text(roff(file, what, group, blocks))


def roff(file: str, what: str, group: str, blocks: Iterable[str]) -> str:
    """One page, from blocks of reStructuredText. Raises `docutils.utils.SystemMessage` for what is none."""
    name, _, section = file.rpartition(".")
    title = f"{name}\n{'=' * len(name)}\n\n{what}\n{'-' * len(what)}"
    about = f":Manual section: {section}\n:Manual group: {group}\n:Version: KRIe {version()}"
    settings = {"report_level": 2, "halt_level": 2, "input_encoding": "unicode", "output_encoding": "unicode"}
    text = "\n\n".join([title, about, *blocks]) + "\n"
    page = str(publish_string(text, writer="manpage", settings_overrides=settings))
    return page.replace(".SH Name\n", ".SH NAME\n")  # as all other pages have it


def _commands() -> Blocks:
    yield _section("SYNOPSIS")
    yield "**krie** *command* [*options*]"
    yield _section("DESCRIPTION")
    yield from map(inline, paragraphs(krie))
    yield inline(
        "By default it only observes: the journal says what would have been done. In mode `enforce`, which `krie.toml` "
        "sets for each plugin, operations are refused and processes poisoned or killed."
    )
    yield _section("COMMANDS")
    for path, command in every("krie", krie):
        of_options = [_item(inline(f"`{_apart(names)}`"), [inline(text)]) for names, text in options(path, command)]
        yield _item(inline(f"`{usage(path, command)}`"), [*map(inline, paragraphs(command)), *of_options])
    yield _section("EXIT STATUS")
    yield from (_item(str(each.value), [inline(each.meaning)]) for each in ExitCode)
    yield _section("FILES")
    yield _item(inline(f"`{HERE}`, `{SYSTEM}`"), [inline("the configuration, in this order: see krie.toml(5)")])
    yield _item(inline("`/var/log/krie/journal.jsonl`"), ["the journal, where the configuration names no other file"])
    yield _section("SEE ALSO")
    yield "krie.toml(5), krie-plugin(7)"


def _configuration(config: Config, plugins: Plugins) -> Blocks:
    yield _section("DESCRIPTION")
    yield inline(
        f"TOML. Without `--config` KRIe reads `{HERE}` in the working folder or, where there is none, `{SYSTEM}`. "
        "Every key has a default; unknown keys are errors. Nobody but root may be able to write to the file, to "
        "policies, and to the folders above them. `krie config init` writes a sample, `krie config check` checks one."
    )
    section = ""
    for key, default, meaning in every_key(config, plugins):
        table, _, name = key.rpartition(".")
        if table != section:
            section = table
            yield _section(f"[{table}]")
        shown = f" (default: ``{default}``)" if default else ""
        yield _item(f"``{name}``{shown}", [inline(meaning) or "see the plugin's manual"])
    yield _section("SEE ALSO")
    yield "krie(1), krie-plugin(7)"


def _plugin() -> Blocks:
    yield _section("DESCRIPTION")
    yield from _prose(hookspecs)
    yield _section("HOOKS")
    for name, hook in vars(hookspecs).items():
        if name.startswith("krie_") and inspect.isfunction(hook):
            yield _item(inline(f"`{name}{signature(hook)}`"), list(_prose(hook)))
    yield _section("SEE ALSO")
    yield "krie(1), krie.toml(5)"


def _prose(what: object) -> Blocks:
    """A docstring's paragraphs; indented ones are code."""
    for each in (inspect.getdoc(what) or "").split("\n\n"):
        yield f"::\n\n{each}" if each.startswith("    ") else inline(" ".join(each.split()))


def inline(text: str) -> str:
    """Markdown's code and nothing else of it, as reStructuredText."""
    pieces = re.split(r"`([^`]*)`", text)
    escaped = [re.sub(r"([\\*|_`])", r"\\\1", each) for each in pieces[::2]]
    codes = [rf"\ ``{each}``\ " for each in pieces[1::2]]
    return "".join(each for pair in zip(escaped, [*codes, ""], strict=True) for each in pair).strip()


def _apart(names: str) -> str:
    """A choice of many, so that a line can end within it."""
    return names.replace("|", " | ")


def _section(name: str) -> str:
    return f"{name}\n{'~' * len(name)}"


def _item(term: str, told: list[str]) -> str:
    return "\n".join([term, *(_under(each) + "\n" for each in told)])


def _under(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())
