"""Policies that are damaged or made at random are judged as `opa` judges them."""

import re
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from random import Random

import pytest
import regorus
from krie.errors import PolicyError

from .checked import OPA, compile_
from .generated import Module
from .idioms import IDIOMS

TOKENS = re.compile(r'"(?:[^"\\\n]|\\.)*"|`[^`]*`|[A-Za-z_]\w*|:=|==|!=|\d+|\s+|.', re.DOTALL)
NAME = re.compile(r"[A-Za-z_]\w*")
PUT = ("x", "y", "_", "input", "data", "count", "f", "5", '"a"', "[1]", "{1}", "true", "null")


def damaged(random: Random, text: str) -> str:
    """One token of the policy is another one, or has something behind it."""
    tokens = TOKENS.findall(text)
    names = [number for number, each in enumerate(tokens) if NAME.fullmatch(each)]
    at = random.choice(names[6:])  # behind the package's name and the rule's
    how = random.randrange(4)
    tokens[at] = (random.choice(PUT), tokens[random.choice(names[6:])], tokens[at] + "(1)", tokens[at] + ".a")[how]
    return "".join(tokens)


class Checker:
    """Asks OPA's compiler about one text after the other: a process for each would take ten times as long."""

    def __init__(self, socket_: Path) -> None:
        connected = socket.socket(socket.AF_UNIX)
        try:
            connected.connect(str(socket_))
        except OSError:
            connected.close()
            raise
        self._connection = HTTPConnection("opa", timeout=60)
        self._connection.sock = connected

    def close(self) -> None:
        self._connection.close()

    def accepts(self, text: str) -> bool:
        self._connection.request("PUT", "/v1/policies/p", text.encode())
        answer = self._connection.getresponse()
        answer.read()
        return answer.status == 200


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checker]:
    folder = tmp_path_factory.mktemp("server")
    command = [
        str(OPA),
        "run",
        "--server",
        "--addr",
        f"unix://{folder}/s",
        "--disable-telemetry",
        "--log-level",
        "error",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) as server:
        try:
            end = time.monotonic() + 60
            while True:
                try:
                    found = Checker(folder / "s")
                    break
                except OSError:
                    assert server.poll() is None, (folder / "log").read_text()
                    assert time.monotonic() < end
                    time.sleep(0.01)
            yield found
            found.close()
        finally:
            server.kill()


STRICTER_BY_DESIGN = re.compile(
    r"recursive|used before it is declared|begins with `\{ TERM|a rule here and an import|must be literals?|"
    r"write `rules|exists already at|variable _ is unsafe"
)
"""What KRIe refuses of what OPA accepts, for the embedded engine's sake or as its own convention: see STRICTER."""


def engine_refuses(text: str) -> bool:
    """Whether the embedded engine's own parser does."""
    try:
        regorus.Engine().add_policy("p", text)
    except RuntimeError:
        return True
    return False


def disagreements(texts: Iterable[str], checker: Checker) -> tuple[list[str], int]:
    """Texts that OPA and KRIe judge differently, with what KRIe says, and how many both accept."""
    found, accepted = [], 0
    for text in texts:
        theirs, mine = checker.accepts(text), ""
        try:
            compile_(text)
        except PolicyError as error:
            mine = str(error)
        accepted += theirs and not mine
        if theirs == bool(mine) and not (theirs and (STRICTER_BY_DESIGN.search(mine) or engine_refuses(text))):
            found.append(f"{text}\nOPA: {theirs}, KRIe: {mine}")
    return found, accepted


def test_randomly_damaged_policies_are_judged_as_opa_does(checker: Checker) -> None:
    random = Random(5)
    corpus = [text for text in IDIOMS.values() if "print(" not in text]  # which OPA's server drops unread
    found, accepted = disagreements((damaged(random, random.choice(corpus)) for _ in range(600)), checker)
    assert found == []
    assert 150 < accepted < 450


def test_random_modules_are_judged_as_opa_does(checker: Checker) -> None:
    random = Random(9)
    found, accepted = disagreements((Module(random).text for _ in range(2000)), checker)
    assert found == []
    assert accepted > 300
