"""Run in a guest that has no compiler: an agent with programs that were compiled elsewhere, and one without any."""

import ctypes
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from krie.testing.agent import RunningAgent

compiled, plugin = sys.argv[1:]
PLUGINS: dict[str, dict[str, Any]] = {"runtime_integrity": {}, "smep_smap": {}, "clock": {}}


def main() -> None:
    found: dict[str, Any] = {"compiler": "is here"}
    try:
        import bcc.libbcc  # noqa: F401
    except (ImportError, OSError) as error:
        found = {"compiler": str(error)}
    folder = Path(tempfile.mkdtemp(dir="/root"))
    options = {"compiled_dir": compiled, "cache_dir": ""}
    with RunningAgent(folder, plugins=PLUGINS, agent=options, plugin_folders=[Path(plugin)]) as agent:
        ctypes.CDLL(None).clock_settime(0, (ctypes.c_long * 2)(10**9, 0))
        agent.settle()
        (started,) = agent.lines("krie.started")
        clock = agent.lines("clock.settime", lambda line: line["event"]["seconds"] == 10**9)
    doctor = [str(Path(sys.executable).with_name("krie")), "doctor", "--config"]
    without = folder / "without.toml"
    without.write_text(f'[agent]\ncompiled_dir = "{folder}"\ncache_dir = ""\n[plugins.smep_smap]\n')
    refused = subprocess.run([*doctor, str(without)], capture_output=True, text=True)
    found |= {"started": started["event"], "clock": len(clock), "status": refused.returncode, "said": refused.stderr}
    print(json.dumps(found))


main()
