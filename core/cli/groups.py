"""Groups of commands: those of `krie` itself, and such as are imported only when one of their commands is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click


class ReaderGoneError(Exception):
    """Whoever read our output has left."""


class Group(click.Group):
    """A group whose help tells of each command the first paragraph, not only what fits into one line."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, " ".join((each.help or "").partition("\n\n")[0].split())) for name, each in found if each]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """In the order in which they were added."""
        return list(self.commands)


class LazyGroup(Group):
    """A group that is known by its name and help alone until it is used."""

    def __init__(self, name: str, place: str, help_: str) -> None:
        """`place`: the module and, behind a colon, the name of the `click.Group` in it."""
        super().__init__(name, help=help_)
        self._place = place

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands; imports them."""
        self._load()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command with this name; imports it."""
        self._load()
        return super().get_command(ctx, cmd_name)

    def _load(self) -> None:
        if not self.commands:
            module, _, name = self._place.partition(":")
            self.commands = getattr(import_module(module), name).commands


class Commands(Group):
    """The commands of `krie`. Raises `ReaderGoneError` where click would exit with 1, which means a bug here."""

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        """Read the arguments; `--help` prints."""
        with _reader_may_go():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _reader_may_go():
            return super().invoke(ctx)


@contextmanager
def _reader_may_go() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGoneError from error
