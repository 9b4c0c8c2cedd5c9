"""Run in a guest: what KRIe says and does under each mode of the kernel's lockdown, which can only be raised."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

compiled, image, release = sys.argv[1:]
LOCKDOWN = Path("/sys/kernel/security/lockdown")
KRIE = str(Path(sys.executable).with_name("krie"))


def done(*arguments: str) -> dict[str, Any]:
    """Status of a command, and all that it said."""
    ran = subprocess.run([KRIE, *arguments], capture_output=True, text=True)
    print(arguments, ran.returncode, ran.stderr[-2000:], flush=True)
    return {"status": ran.returncode, "output": ran.stdout, "errors": ran.stderr}


def closed(file: str) -> bool:
    """Whether nobody may open this file of debugfs."""
    try:
        Path("/sys/kernel/debug", file).read_bytes()
    except PermissionError:
        return True
    return False


def main() -> None:
    shutil.copyfile(image, f"/lib/modules/{release}/vmlinuz")
    config = Path(tempfile.mkdtemp(dir="/root")) / "krie.toml"
    options = f'[agent]\ncompiled_dir = "{compiled}"\ncache_dir = ""\n'
    config.write_text(f'{options}[journal]\npath = "journal"\n[plugins.runtime_integrity]\n[plugins.syscall_table]\n')
    found = {}
    for mode in ("integrity", "confidentiality"):
        LOCKDOWN.write_text(mode)
        found[mode] = {
            "integrity": done("integrity", "--json"),
            "doctor": done("doctor", "--json", "--config", str(config)),
            "closed": {file: closed(file) for file in ("kprobes/enabled", "kprobes/list")},
            "run": done("run", "--config", str(config), "--duration", "3"),
        }
    print(json.dumps(found))


main()
