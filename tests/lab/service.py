"""Run in a guest, with the page's commands that make KRIe a service: does them, and tells what the service then does.

The last line of its output is what it found; without that, the output says why it did not get so far.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from krie.agent.admin import ask
from krie.testing.agent import ARMED_S
from krie.testing.needs import compiled_dir
from krie.testing.patience import PATIENCE_S, wait_for

from .init import hand_over, systemctl

ROOT = Path(__file__).parents[2]
UNIT = "krie.service"
KRIE = "/opt/krie/bin/krie"
RUN_DIR = Path("/run/krie")
JOURNAL = Path("/var/log/krie/journal.jsonl")
PROTECTED = Path("/proc/sys/kernel/ftrace_enabled")
_SHOWN = ("ActiveState", "SubState", "Result", "NRestarts", "MainPID", "ExecMainStatus", "ControlGroup")
_DROP_IN = "[Service]\nTimeoutStartSec=600\nTimeoutStopSec=600\n"
"""Everything here is emulated, beside other guests."""
_FOLDERS = ("/etc/krie", "/etc/krie/policies", "/var/log/krie", "/var/lib/krie", "/var/cache/krie", "/run/krie")


def install() -> None:
    """What the page did before: KRIe in /opt/krie, with the sample's configuration, but that one plugin enforces."""
    Path("/opt/krie").symlink_to(sys.prefix)
    sample = (ROOT / "core/sample.toml").read_text()
    enforcing = sample.replace('mode = "observe"', 'mode = "enforce"', 1)
    assert enforcing != sample
    agent = f'[agent]\ncompiled_dir = "{compiled_dir()}"\nloader_timeout_s = {ARMED_S}'
    config = Path("/etc/krie/krie.toml")
    config.parent.mkdir(mode=0o755)
    config.write_text(enforcing.replace("[agent]", agent, 1))
    config.chmod(0o600)
    drop_in = Path(f"/run/systemd/system/{UNIT}.d/slow.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text(_DROP_IN)


def shown() -> dict[str, str]:
    """What systemd says of the unit."""
    return dict(line.split("=", 1) for line in systemctl("show", UNIT, f"-p{','.join(_SHOWN)}").stdout.splitlines())


def journal() -> list[dict[str, Any]]:
    """All lines of the agent's journal, but for one that is being written."""
    return list(map(json.loads, JOURNAL.read_text().rpartition("\n")[0].splitlines()))


def lines(kind: str) -> list[dict[str, Any]]:
    """Those of this kind."""
    return [line for line in journal() if line["kind"] == kind]


def told(rule: str) -> list[dict[str, Any]]:
    """Those in which this rule fired."""
    return [line for line in journal() if rule in (each["id"] for each in line["decision"]["rules"])]


def refusal(attempt: Callable[[], None]) -> str:
    """The error that an attempt ends with; empty where it succeeds."""
    try:
        attempt()
    except OSError as error:
        return type(error).__name__
    return ""


def weaken() -> None:
    """A stranger's write, past Python's buffers, which would keep the error for themselves."""
    file = os.open(PROTECTED, os.O_WRONLY)
    try:
        os.write(file, b"0\n")
    finally:
        os.close(file)


def steps(page: str) -> Iterator[tuple[str, Any]]:
    """One finding after the other."""
    done = subprocess.run(["bash", "-exc", page], cwd=ROOT, stdout=sys.stderr, check=False)
    assert done.returncode == 0, f"the page's commands end with {done.returncode}"
    yield "started", (unit := shown())
    agent = int(unit["MainPID"])
    yield "ready", ask(RUN_DIR, {"ask": "status"}, PATIENCE_S)["tgid"]  # at once: systemd said that it is
    command = subprocess.run([KRIE, "status", "--json"], capture_output=True, text=True, check=False)
    yield "status", json.loads(command.stdout or "{}")
    yield "doctor", ask(RUN_DIR, {"ask": "doctor"}, PATIENCE_S)
    yield "folders", {each: oct(Path(each).stat().st_mode & 0o7777) for each in _FOLDERS}
    yield "kill", refusal(partial(os.kill, agent, signal.SIGTERM))
    yield "weaken", refusal(weaken)
    yield "protected", PROTECTED.read_text().strip()
    wait_for(lambda: told("AGENT005") and told("SYSCTL001"), lambda: "the journal does not tell both attempts")
    yield "guarded", [line["event"]["attempt"] for line in told("AGENT005")]
    yield "refused", [(line["decision"]["action"], line["process"]["exe"]) for line in told("SYSCTL001")]
    before = len(lines("krie.policy"))
    yield "reload", systemctl("reload", UNIT).returncode
    wait_for(lambda: len(lines("krie.policy")) > before)
    yield "policies", [line["event"]["state"] for line in lines("krie.policy")[before:]]
    yield "reloaded", shown()
    yield "stop", systemctl("stop", UNIT).returncode
    yield "stopped", shown()
    yield "ends", len(lines("krie.stopped"))


def main(page: str) -> None:
    """Print what was found as one line of JSON."""
    install()
    hand_over()
    try:
        found = dict(steps(page))
    except BaseException:
        for command in (["systemctl", "status", UNIT], ["journalctl", "--boot", "--lines=60"]):
            subprocess.run([*command, "--no-pager", "--full"], stdout=sys.stderr, check=False)
        raise
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
