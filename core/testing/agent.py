"""A real agent in a process of its own, for tests: start it, look at its journal, reload it, stop or kill it.

with RunningAgent(tmp_path, plugins={"my_plugin": {}}) as agent:
    trigger()
    (line,) = agent.lines("my_plugin.event", lambda line: line["process"]["tgid"] == tgid)
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..agent.admin import ask
from . import agent_process
from .agent_process import AgentProcess
from .needs import compiled_dir
from .patience import PATIENCE_S

Line = dict[str, Any]
Test = Callable[[Line], bool]


def fired(line: Line) -> list[tuple[str, str]]:
    """Id and action of each rule that fired for the event of a journal line, by id."""
    return [(each["id"], each["action"]) for each in line["decision"]["rules"]]


ARMED_S = 900
"""Where everything is emulated, and other guests run beside this one, compiling alone takes minutes."""
_UNHINDERED = 10_000
"""Records of a user that are told at once, and in a second: tests do in a moment what no user does in a minute."""
_DECISION_MS = 60_000
"""What takes longer is wrong: where all is emulated, or much is to be done, whoever decides waits for his turn."""
_STATUS = {"ask": "status"}


class AgentFailed(AssertionError):
    """The agent ended by itself, or did not do in time what was waited for. Has the end of what it said."""


class RunningAgent:
    """One agent with a configuration, lock, journal and policies of its own. Needs root."""

    def __init__(
        self,
        folder: Path,
        *,
        plugins: Mapping[str, Mapping[str, Any]],
        agent: Mapping[str, Any] | None = None,
        enforcement: Mapping[str, Any] | None = None,
        policy: Mapping[str, Any] | None = None,
        journal: Mapping[str, Any] | None = None,
        executables: Mapping[str, Path] | None = None,
        policies: Iterable[Path] = (),
        plugin_folders: Iterable[Path] = (),
        guards: bool = False,
        executed: bool = False,
        timeout_s: float = PATIENCE_S,
    ) -> None:
        """Start nothing yet.

        `plugin_folders`: where plugins that are not installed lie with their metadata. `guards`: an agent that enforces
        guards itself, too, and takes nobody's signals; so it gets a terminal on which `stop` presses Ctrl-C.
        `executed`: in a Python of its own, for what is about that; else it is forked with its imports.
        """
        self._guards = guards
        self._begin = agent_process.executed if executed else agent_process.forked
        self._terminals: tuple[int, ...] = os.openpty() if guards else ()
        self.folder, self.timeout_s = folder, timeout_s
        self.journal = folder / "journal.jsonl"
        self.config = folder / "krie.toml"
        # Of its own, and not in a folder of tests: a socket's path is short, and file systems of guests hold none.
        self._run_dir = tempfile.TemporaryDirectory(prefix="krie-agent-", dir="/run")
        self.run_dir = Path(self._run_dir.name)
        self._plugin_folders = [str(each) for each in plugin_folders]
        sections = {
            "agent": {
                "run_dir": str(self.run_dir),
                "state_dir": str(folder / "state"),
                "allow_syscall_tracepoints": True,
                "ring_mib": 8,
                "user_burst": _UNHINDERED,
                "user_rate": _UNHINDERED,
                "loader_timeout_s": ARMED_S,
                "compiled_dir": compiled_dir(),
                **(agent or {}),
            },
            "enforcement": {"guard": guards, **(enforcement or {})},
            "executables": {name: str(path) for name, path in (executables or {}).items()},
            "journal": {"path": str(self.journal), **(journal or {})},
            "policy": {
                "paths": [str(each) for each in policies],
                "check_interval_s": 1,
                "decision_ms": _DECISION_MS,
                **(policy or {}),
            },
            **{f"plugins.{name}": keys for name, keys in plugins.items()},
        }
        text = "".join(
            f"[{section}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in keys.items())
            for section, keys in sections.items()
        )
        self.config.write_text(text)
        self.config.chmod(0o600)
        self._lines: list[Line] = []
        self._changed = threading.Condition()

    def __enter__(self) -> RunningAgent:
        """Start, and wait until it is armed. Raises `AgentFailed`."""
        arguments = ["--config", str(self.config), "--stdout"]
        terminal = self._terminals[1] if self._guards else None
        with (self.folder / "stderr").open("wb") as stderr:
            self.process: AgentProcess = self._begin(arguments, self._plugin_folders, stderr, terminal)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.wait("krie.started", timeout_s=max(self.timeout_s, ARMED_S))
        except AgentFailed:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it, if it still runs."""
        self.stop()

    @property
    def stderr(self) -> str:
        """What it said so far."""
        return (self.folder / "stderr").read_text()

    def lines(self, kind: str, test: Test = lambda _: True) -> list[Line]:
        """All journal lines of a kind so far that pass the test."""
        with self._changed:
            return [line for line in self._lines if line["kind"] == kind and test(line)]

    def all_lines(self) -> list[Line]:
        """All journal lines so far, in their order."""
        with self._changed:
            return list(self._lines)

    def wait(
        self, kind: str, test: Test = lambda _: True, count: int = 1, *, timeout_s: float | None = None
    ) -> list[Line]:
        """Wait until there are so many such lines; returns all. Raises `AgentFailed`."""
        deadline = time.monotonic() + (timeout_s or self.timeout_s)
        found: list[Line] = []
        seen = 0
        while True:
            with self._changed:
                new = self._lines[seen:]
                if not new and not self._changed.wait(1.0) and not self._reader.is_alive():
                    break
            seen += len(new)
            found += [line for line in new if line["kind"] == kind and test(line)]
            if len(found) >= count:
                return found
            if not new and time.monotonic() >= deadline:
                break
        raise AgentFailed(f"{len(found)} of {count} lines of {kind}; the agent said:\n{self.stderr}")

    def settle(self) -> None:
        """Wait until everything that happened before this call is in the journal.

        The agent empties the ring between two requests, so what happened before the first is judged by the second.
        """
        ask(self.run_dir, _STATUS, self.timeout_s)
        while (status := ask(self.run_dir, _STATUS, self.timeout_s))["backlog"]:
            pass
        deadline = time.monotonic() + self.timeout_s
        with self._changed:
            while (self._lines[-1]["seq"] if self._lines else 0) < status["events"]:
                if not self._changed.wait(deadline - time.monotonic()):
                    raise AgentFailed(f"line {status['events']} of the journal does not come; it said:\n{self.stderr}")

    def stop(self) -> int:
        """End it by SIGTERM or, where it guards itself, by a Ctrl-C; returns its exit code."""
        if self.process.poll() is None:
            if self._guards:
                os.write(self._terminals[0], b"\3")
            else:
                self.process.terminate()
        code = self.process.wait(self.timeout_s)
        self._close()
        return code

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.kill()
        self.process.wait()
        self._close()

    def _close(self) -> None:
        self._reader.join(self.timeout_s)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._run_dir.cleanup()
        for each in self._terminals:
            os.close(each)
        self._terminals = ()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if not line.endswith(b"\n"):
                break  # a SIGKILL came while it was written
            with self._changed:
                self._lines.append(json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


def _toml(value: Any) -> str:
    """As JSON, but for tables."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + "}"
    return f"[{', '.join(map(_toml, value))}]" if isinstance(value, list | tuple) else json.dumps(value)
