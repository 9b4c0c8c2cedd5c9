"""The agent's process: its arguments, its standard output, and how it ends.

Run as `python -m krie.agent`; `krie run` does so. It imports neither click nor rich, and maps no LLVM.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
from contextlib import ExitStack
from pathlib import Path

from ..config import load_config
from ..errors import ExitCode
from ..interruption import Interrupted, Interruption, end_by
from ..output import complain, complain_of, log_to_stderr, visible_streams
from ..plugin.installed import require_all_installed
from ..trusted_code import only_trusted_imports
from .agent import Agent
from .service_manager import tell_ready

_log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Run an agent; returns its exit code."""
    parser = argparse.ArgumentParser(prog="krie-agent", description="The KRIe agent; `krie run` starts it.")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--duration", type=float, default=None, metavar="S")
    parser.add_argument("--stdout", action="store_true", help="write the journal's lines to standard output, too")
    parser.add_argument("--quiet", action="store_true", help="only say what is wrong")
    with visible_streams():
        options = parser.parse_args(arguments)
        log_to_stderr(logging.WARNING if options.quiet else logging.INFO)
        return _run(options)


def _own_output() -> int:
    """Have standard output for the journal alone; returns the descriptor. What plugins print goes to standard error."""
    own = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3)
    os.dup2(2, 1)
    return own


def _run(options: argparse.Namespace) -> int:
    output = _own_output() if options.stdout else None
    interruption = Interruption()  # until the agent runs, and takes signals as reasons to stop
    try:
        config = load_config(options.config)
        with ExitStack() as stack:
            stack.enter_context(only_trusted_imports())
            require_all_installed(config.plugins, str(options.config))
            _log.info("arming: probes of %s are compiled, attached and tried", ", ".join(config.plugins) or "no plugin")
            agent = Agent(config, str(options.config), stack, output=output)
            interruption.check()
            try:
                agent.begin()
                tell_ready()
                agent.run(options.duration)
            finally:
                agent.finish()
    except Interrupted as asked:
        complain(f"{asked.signal.name} ended the start")
        return end_by(asked.signal)
    except Exception as error:
        return complain_of(error)
    return ExitCode.OK
