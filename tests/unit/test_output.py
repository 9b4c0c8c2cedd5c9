"""What goes to a terminal: only visible characters, whoever wrote it, in whatever encoding; and all goes one way."""

import ast
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b\u202e\n"
CHILD = """
import logging, sys, warnings
from krie import output, errors
evil = {evil!r}
with output.visible_streams():
    output.log_to_stderr(logging.INFO)
    {code}
"""


def said(code: str, *, close: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """What a process writes that does this within `visible_streams`."""
    program = CHILD.format(evil=EVIL, code=code)
    command = ["sh", "-c", f'exec "$@" {close}', "sh", sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, env={**os.environ, **environment}, timeout=60)


@pytest.mark.parametrize(
    "code",
    [
        "output.say(evil, 'two')",
        "output.say_text(evil)",
        "output.say_json({'name': evil})",
        "output.complain(evil, evil)",
        "output.complain_of(errors.CompileError(evil, evil))",
        "logging.getLogger('x').error('%s happened', evil, extra={'details': evil})",
        "logging.getLogger('x').error('happened: ' + evil)",
        "exec('try: int(evil)\\nexcept ValueError: logging.exception(evil)')",
        "output.complain_of(ValueError(evil))",
        "output.complain_of(OSError(24, evil, evil))",
        "print(evil, file=sys.stderr); print(evil)",
        "sys.stderr.writelines([evil, evil])",
        "warnings.warn(evil)",
        "import argparse; argparse.ArgumentParser(prog=evil).parse_args([evil])",
        "import click; click.echo(evil); click.echo(evil, err=True)",
        "import traceback; traceback.print_exception(ValueError(evil))",
    ],
)
def test_only_visible_characters_come_out(code: str) -> None:
    done = said(code)
    shown = (done.stdout + done.stderr).decode()
    assert "owned" in shown
    assert all(line.isprintable() for line in shown.split("\n")), shown


@pytest.mark.parametrize(
    "code",
    [
        "output.say(' ::owned::', '##[owned]')",
        "output.say_text('x\\n::owned::')",
        "output.complain_text('::owned::\\n##[owned]')",
        "output.complain('##[owned]', 'x\\n::owned::##[owned]')",
        "logging.getLogger('x').error('##[owned]', extra={'details': '::owned::'})",
        "from krie.cli.render import console, line; console().print(line('::owned::##[owned]'))",
        "from krie.cli.render import console, table; console().print(table('', 'a', [(' ::owned',), ('##[owned]',)]))",
    ],
)
def test_no_line_is_a_command_to_ci(code: str) -> None:
    done = said(code)
    shown = (done.stdout + done.stderr).decode()
    assert "owned" in shown
    assert "##[" not in shown
    assert not any(line.strip().startswith("::") for line in shown.split("\n")), shown


def test_commands_to_ci_of_our_own_stay() -> None:
    assert said("output.say_for_ci('::error::a\\x1b')").stdout == b"::error::a\\x1b\n"


def test_a_line_that_is_somebody_elses_is_marked() -> None:
    done = said("output.complain('first' + evil + 'krie: forged', 'a\\nkrie: forged\\n')")
    assert done.stderr.decode().split("\n") == [
        r"krie: first\x1b]0;owned\x07\x1b[2J\x9b\u202e\nkrie: forged",
        "  | a",
        "  | krie: forged",
        "",
    ]


@pytest.mark.parametrize("how", ["output.say(text)", "logging.error('%s', text)", "output.complain(text)"])
def test_what_is_one_line_stays_one(how: str) -> None:
    done = said(f"text = 'a\\nkrie: forged\\r'; {how}")
    shown = (done.stdout + done.stderr).decode().removeprefix("krie: ")
    assert shown == "a\\nkrie: forged\\r\n"


PIECES = [b"one\x1b]0;owned\x07\ntw", b"o \xe2\x80", b"\xae\xffend\r\n"]


def test_what_a_guest_writes_is_seen_on_a_terminal_and_exact_elsewhere() -> None:
    code = f"[output.pass_through(each) for each in {PIECES}]"
    assert said(code).stdout == b"".join(PIECES)
    ours, theirs = pty.openpty()
    program = CHILD.format(evil=EVIL, code=code)
    subprocess.run([sys.executable, "-c", program], stdout=theirs, stderr=theirs, check=True, timeout=60)
    os.close(theirs)
    got = os.read(ours, 4096).decode()
    os.close(ours)
    assert got.replace("\r\n", "\n") == "one\\x1b]0;owned\\x07\ntwo \\u202e\\xffend\\r\n"


def test_the_agents_own_command_line_too() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-m", "krie.agent", "--config=x", EVIL], capture_output=True, timeout=60
    )
    assert done.returncode == 2
    shown = done.stderr.decode()
    assert "owned" in shown
    assert all(line.isprintable() for line in shown.split("\n")), shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "koi8-r", "utf-8"])
def test_a_terminal_of_any_encoding_loses_nothing(encoding: str) -> None:
    done = said("output.say('Łódź é'); print('日'); output.complain('é')", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    assert text.encode("ascii", "backslashreplace").decode("unicode_escape") == "Łódź é\n日\n"


@pytest.mark.parametrize("close", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_files_place(close: str, tmp_path: Path) -> None:
    """A file that is opened later would else get its number, and what is printed."""
    place = tmp_path / "file"
    done = said(f"file = open({str(place)!r}, 'w'); output.say(evil); output.complain(evil); sys.exit(7)", close=close)
    assert done.returncode == 7, done.stderr
    assert place.read_bytes() == b""


PRINTING = {
    *("print", "Console", "escape", "?.Console", "?.from_markup", "?.from_ansi", "?.echo", "?.secho"),
    *("sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__", "os.write to 1 or 2", "sys.exit with a text"),
    *("?.print_exc", "?.print_exception", "?.print_stack", "logging.basicConfig", "logging.StreamHandler"),
}
"""Ways to print past `krie.output` and `krie.cli.render`, or to have a text taken for markup."""
CHILDREN = "its standard output and error are a file, which the agent reads"
MAY = {
    "core/output.py": ("it is the one place", PRINTING),
    "core/cli/render.py": ("it makes tables and colours of what is visible", {"Console"}),
    "core/cli/main.py": ("it asks whether it is a terminal, and flushes", {"sys.stdout"}),
    "core/agent/journal.py": (
        "it writes the journal's JSON, which has visible characters only",
        {"os.write to 1 or 2"},
    ),
    "core/child.py": (CHILDREN, {"sys.stdout", "sys.stderr", "?.print_exc"}),
    "core/loader/forked.py": (CHILDREN, {"sys.stdout", "sys.stderr", "?.print_exc"}),
    "core/loader/child.py": (CHILDREN, {"print", "sys.stderr"}),
    "core/testing/forks.py": (CHILDREN, {"sys.stdout", "sys.stderr", "?.print_exc"}),
    "plugins/cfi/derived.py": (CHILDREN, {"sys.stdout"}),
    "plugins/cfi/module_reading.py": (CHILDREN, {"sys.stdout"}),
    "core/loader/isolated.py": (CHILDREN, {"os.write to 1 or 2"}),
    "core/services/courier.py": (CHILDREN, {"sys.stderr", "?.print_exc"}),
    "core/review/page.py": ("it escapes for HTML, as the function of this name there does", {"escape"}),
    "core/review/report_text.py": ("it escapes for XML, as the function of this name there does", {"escape"}),
    "core/tier/compiled.py": (CHILDREN, {"os.write to 1 or 2"}),
}


def used(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names, attributes and calls that matter here, by line. An annotation is no use."""
    annotations = {
        id(inner)
        for each in ast.walk(tree)
        for annotation in (getattr(each, "annotation", None), getattr(each, "returns", None))
        if isinstance(annotation, ast.AST)
        for inner in ast.walk(annotation)
    }
    for each in ast.walk(tree):
        if id(each) in annotations:
            continue
        if isinstance(each, ast.Name):
            yield each.lineno, each.id
        elif isinstance(each, ast.Attribute):
            yield each.lineno, f"?.{each.attr}"
            if isinstance(each.value, ast.Name):
                yield each.lineno, f"{each.value.id}.{each.attr}"
        elif isinstance(each, ast.Call) and each.args:
            first, name = each.args[0], ast.unparse(each.func)
            if name == "os.write" and isinstance(first, ast.Constant) and first.value in (1, 2):
                yield each.lineno, "os.write to 1 or 2"
            text = isinstance(first, ast.JoinedStr) or (
                isinstance(first, ast.Constant) and isinstance(first.value, str)
            )
            if name in ("sys.exit", "SystemExit") and text:
                yield each.lineno, "sys.exit with a text"


def test_everybody_prints_by_the_one_place() -> None:
    found = {}
    for folder in ("core", "plugins", "bpf", "policies"):
        for path in (ROOT / folder).rglob("*.py"):
            uses = {(line, name) for line, name in used(ast.parse(path.read_text())) if name in PRINTING}
            place = str(path.relative_to(ROOT))
            _, allowed = MAY.get(place, ("", set()))
            found[place] = {each for each in uses if each[1] not in allowed}
    assert {place: uses for place, uses in found.items() if uses} == {}
    assert found.keys() >= MAY.keys()


@pytest.mark.parametrize(
    "source",
    [
        "print('x')",
        "file = print",
        "sys.stdout.write('x')",
        "say = sys.stderr",
        "os.write(2, b'x')",
        "sys.exit(f'{x}')",
        "Console().print('x')",
        "rich.console.Console()",
        "escape('x')",
        "Text.from_markup('x')",
        "click.echo('x')",
        "traceback.print_exc()",
        "logging.basicConfig()",
    ],
)
def test_that_test_sees(source: str) -> None:
    assert {name for _, name in used(ast.parse(source))} & PRINTING
