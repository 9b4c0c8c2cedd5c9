"""The agent's socket: who may ask, what comes back, and that nobody holds the agent up."""

import errno
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from krie.agent.admin import RefusedError, SilentAgentError, ask
from krie.agent.control import ANSWER_BYTES, SOCKET, Control, _send
from krie.errors import ConfigError, ExitCode, NotRunningError, UntrustedFileError
from krie.processes.peer import Peer

from .serving import Serving


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    made = Serving(tmp_path)
    yield made
    made.stop()


def raw(folder: Path, request: bytes) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(60)
        connection.connect(str(folder / SOCKET))
        connection.send(request)
        return dict(json.loads(connection.recv(1 << 20)))


def test_an_answer_comes_back_whole(serving: Serving, tmp_path: Path) -> None:
    answer = ask(tmp_path, {"ask": "x"})
    assert answer == {"echo": {"ask": "x"}, "long": "x" * 200_000}
    assert serving.asked == [({"ask": "x"}, Peer(os.getpid(), os.geteuid()))]


def test_only_root_gets_in(serving: Serving, tmp_path: Path) -> None:
    assert (tmp_path / SOCKET).stat().st_mode & 0o777 == 0o600
    child = os.fork()
    if child == 0:
        try:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            (tmp_path / SOCKET).chmod(0o666)
            for folder in (tmp_path, *list(tmp_path.parents)[:2]):  # pytest's own
                folder.chmod(0o755)
            os.setuid(12345)
            connection.connect(str(tmp_path / SOCKET))
            connection.send(b'{"ask": "x"}')
            os._exit(1 if connection.recv(100) else 0)
        except OSError:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert serving.asked == []


@pytest.mark.parametrize("request_", [b"\xff", b"[]", b"{", b'"' + b"x" * 5000 + b'"', b"[" * 4000])
def test_nonsense_is_answered_and_ends_nothing(serving: Serving, tmp_path: Path, request_: bytes) -> None:
    assert "error" in raw(tmp_path, request_)
    assert ask(tmp_path, {"ask": "x"})["echo"] == {"ask": "x"}


def test_what_makes_no_sense_is_refused(serving: Serving, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="ask for something else"):
        ask(tmp_path, {"ask": "wrong"})


@pytest.mark.parametrize("size", [ANSWER_BYTES, 4 * ANSWER_BYTES])
def test_what_whoever_asks_has_no_room_for_is_said(serving: Serving, tmp_path: Path, size: int) -> None:
    with pytest.raises(RefusedError, match=rf"its answer of {size + 12} bytes does not fit"):
        ask(tmp_path, {"bytes": size})
    assert ask(tmp_path, {"ask": "x"})["echo"] == {"ask": "x"}


def test_what_does_not_fit_into_the_socket_is_said() -> None:
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with mine, theirs:
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)  # as net.core.wmem_max may have it
        mine.setblocking(False)
        theirs.settimeout(60)
        _send(mine, b"x" * 100_000)
        assert json.loads(theirs.recv(4096)) == {"error": "its answer of 100000 bytes does not fit into its socket"}


def test_silent_clients_hold_nobody_up(serving: Serving, tmp_path: Path) -> None:
    silent = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(5)]
    for each in silent:
        each.connect(str(tmp_path / SOCKET))
    assert ask(tmp_path, {"ask": "x"})["echo"] == {"ask": "x"}
    for each in silent:
        each.close()


def test_silent_clients_are_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("krie.agent.control._CLIENT_S", 0.05)
    serving = Serving(tmp_path)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
            silent.settimeout(60)
            silent.connect(str(tmp_path / SOCKET))
            assert silent.recv(1) == b""
    finally:
        serving.stop()


def test_where_no_agent_is(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError, match="no agent is running"):
        ask(tmp_path, {"ask": "x"})
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left_behind:
        left_behind.bind(str(tmp_path / SOCKET))
    with pytest.raises(NotRunningError, match="no agent is running"):
        ask(tmp_path, {"ask": "x"})
    made = Serving(tmp_path)  # takes the place of what was left behind
    assert ask(tmp_path, {"ask": "x"})["echo"]
    made.stop()
    assert not (tmp_path / SOCKET).exists()


def test_an_agent_that_says_nothing(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as mute:
        mute.bind(str(tmp_path / SOCKET))
        mute.listen()
        with pytest.raises(SilentAgentError, match=r"gave no answer for 0\.05 s") as raised:
            ask(tmp_path, {"ask": "x"}, timeout_s=0.05)
    assert raised.value.exit_code is ExitCode.DEGRADED  # neither root nor the kernel lacks anything


@pytest.mark.parametrize("answer", [b"no JSON", b"[1]", b"[" * 100_000, b"\xff", b"null"])
def test_whoever_answers_nonsense_is_no_agent(tmp_path: Path, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.bind(str(tmp_path / SOCKET))
        other.listen()

        def serve() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(4096)
                connection.send(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(SilentAgentError, match="answers what is not a JSON object") as raised:
            ask(tmp_path, {"ask": "status"})
        thread.join()
    assert raised.value.exit_code is ExitCode.DEGRADED


STRANGER = """
import os, socket, sys
os.setgid(12345)
os.setuid(12345)
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
    made.bind(sys.argv[1])
    made.listen()
    print("listens", flush=True)
    connection, _ = made.accept()
    sys.exit(bool(connection.recv(4096)))
"""


def test_an_answer_of_another_user_is_not_believed(tmp_path: Path) -> None:
    """In a folder that he may write he could say that all is well, where no agent runs."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o777)
        command = [sys.executable, "-IS", "-c", STRANGER, str(folder / SOCKET)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"listens\n"
        with pytest.raises(UntrustedFileError, match=f"^{folder / SOCKET}: user 12345 answers there instead of"):
            ask(folder, {"ask": "status"})
        assert child.wait() == 0  # nor was he told anything, as a token
        child.stdout.close()


def test_a_folder_that_cannot_hold_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"agent\.run_dir: .* cannot be made"):
        Control(tmp_path / "nothing", lambda *_: {})


def test_whoever_cannot_be_let_in_waits_and_wakes_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control, poll = Control(tmp_path, lambda request, _: request), select.epoll()
    control.wait_on(poll)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.connect(str(tmp_path / SOCKET))
    client.send(b"{}")

    def refuse(_: socket.socket) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as context:
        context.setattr("socket.socket.accept", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            control.serve()
        assert poll.poll(0) == []
        control.serve()  # and asks no more
    control.serve()
    assert poll.poll(0) == []
    control.resume()
    assert poll.poll(5)
    control.serve()
    control.serve()
    assert client.recv(100) == b"{}"
    client.close()
    control.close()
    poll.close()
