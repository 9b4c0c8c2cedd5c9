"""How a keeper is started; without a kernel."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from krie.kernel import keeping
from krie.kernel.keeper import CLOSE, HOLD, IDLE_SLOT, IGNORED, MESSAGE, TRAP, _Keeper
from krie.kernel.keeping import Keeper
from krie.kernel.switches import Addresses, Switches

SAYS_WHAT_IS_BLOCKED = """
import json, signal, socket, sys
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
agent = socket.socket(fileno=json.loads(sys.argv[2])["numbers"]["socket"])
agent.send(" ".join(each.name for each in blocked).encode())
"""

LIGHT = ("", ".agreed", ".numbers")


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeper]:
    monkeypatch.setattr(keeping, "_PROGRAM", SAYS_WHAT_IS_BLOCKED)
    numbers = dict.fromkeys(("debugfs", "tracefs", "program", "answer", "state"), -1)
    made = Keeper(numbers, Addresses(), ())
    yield made
    made._socket.close()
    made._process.wait()


def test_no_signal_ends_it_on_its_way_to_where_it_ignores_them(keeper: Keeper) -> None:
    """A service manager sends them to all processes of the service."""
    assert set(keeper._answer().split()) == {each.name for each in IGNORED}
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(IGNORED)


def test_it_imports_little() -> None:
    program = keeping._PROGRAM.replace("main(sys.argv[2])", "print(*sys.modules)")
    package = str(Path(keeping.__file__).parents[1])
    run = [sys.executable, "-I", "-S", "-c", program, package]
    imported = set(subprocess.run(run, check=True, capture_output=True, text=True).stdout.split())
    assert {each for each in imported if each.startswith("krie.events")} == {f"krie.events{x}" for x in LIGHT}


def test_what_does_not_reach_it_for_want_of_descriptors_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("krie.kernel.keeper.kernel_log", said.append)
    mine, theirs = socket.socketpair()
    numbers = dict.fromkeys(
        ("agent", "program", "answer", "answer_at", "answer_bytes", "state", "secret", "tracefs"), -1
    )
    agrees = cast("Switches", SimpleNamespace(agree=lambda _: True, idle=1 << 20))
    made = _Keeper({**numbers, "agent_tgid": 1, "socket": theirs.detach()}, Addresses(), (), agrees)
    assert made._socket is not None
    with mine, made._socket:
        assert made._serve(MESSAGE.pack(HOLD, TRAP.encode(), 3, 0x10), [])
        assert made._serve(MESSAGE.pack(HOLD, TRAP.encode(), IDLE_SLOT, 0x20), [])
        assert [each.partition(" at ")[2].partition(" ")[0] for each in said] == ["0x10", "0x20"]
        assert agrees.idle == 1 << 20  # the one that it has stays
        assert made._serve(MESSAGE.pack(CLOSE, b" ", 3, 0), [])
        made._leave()
        assert not made._leaving
