"""`krie run` on a terminal: starts the agent, and shows the lines of its journal so that people can read them."""

from __future__ import annotations

import json
import signal
import subprocess

from ..output import complain
from .render import console, waiting
from .render_live import Live


def run_on_terminal(command: list[str]) -> int:
    """Run the agent by this command; returns its exit code, as a shell has it of one that a signal ended."""
    shown = console()
    live = Live(shown)
    spinner = waiting(shown, "compiling and attaching ...")
    with spinner, subprocess.Popen(command, stdout=subprocess.PIPE) as agent:
        # A Ctrl-C reaches the agent too, which then ends; we show what it still says.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: _pass_on(agent, number))
        assert agent.stdout is not None
        for text in agent.stdout:
            if not text.endswith(b"\n"):  # it was killed as it wrote
                break
            line = json.loads(text)
            if line["kind"] == "krie.started":
                spinner.stop()
            live.show(line)
    return agent.returncode if agent.returncode >= 0 else 128 - agent.returncode


def _pass_on(agent: subprocess.Popen[bytes], number: int) -> None:
    try:
        agent.send_signal(number)
    except PermissionError:
        hint = "press Ctrl-C on its terminal, or let systemd end it"
        complain(f"the agent guards itself, and takes no signal from anybody but tgid 1: {hint}")
