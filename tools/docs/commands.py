"""The commands as their `--help` explains them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
from krie.cli.main import krie
from krie.config import Config
from krie.plugin.manager import Plugins

from .markdown import table


def commands(_config: Config, _plugins: Plugins) -> str:
    """A section a command."""
    return "\n".join(_section(path, command) for path, command in every("krie", krie))


def every(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """All commands that are not groups, by their whole names."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command, info_name=path)
    for name in command.list_commands(context):
        if (found := command.get_command(context, name)) is not None:
            yield from every(f"{path} {name}", found)


def paragraphs(command: click.Command) -> list[str]:
    """Of a command's help."""
    text = (command.help or "").replace("\b\n", "")
    return [" ".join(each.split()) for each in re.split(r"\n\s*\n", text)]


def options(path: str, command: click.Command) -> list[tuple[str, str]]:
    """Each option but `--help`, and what it means."""
    context = click.Context(command, info_name=path)
    found = (each.get_help_record(context) for each in command.params if isinstance(each, click.Option))
    return [(names, " ".join(text.split())) for names, text in filter(None, found)]


def usage(path: str, command: click.Command) -> str:
    """How it is called."""
    pieces = command.collect_usage_pieces(click.Context(command, info_name=path))
    return " ".join([path, *pieces])


def _section(path: str, command: click.Command) -> str:
    rows = [(f"`{names}`", text) for names, text in options(path, command)]
    text = "\n\n".join(paragraphs(command))
    shown = f"\n{table(('option', 'meaning'), rows)}" if rows else ""
    return f"### {path}\n\n```text\n{usage(path, command)}\n```\n\n{text}\n{shown}"
