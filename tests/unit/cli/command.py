"""The command as a user without root runs it."""

import os
import subprocess
import sys
from pathlib import Path

KRIE = ("-c", "from krie.cli.main import main; main()")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "KRIE_CONFIG")}


def configure(folder: Path, text: str) -> Path:
    path = folder / "krie.toml"
    path.write_text(text)
    path.chmod(0o600)
    return path


def krie(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    called = [sys.executable, "-I", *KRIE, *arguments]
    return subprocess.run(called, cwd=folder, capture_output=True, text=True, env={**ENVIRONMENT, **environment})
