"""systemd as process 1 of a guest, in place of virtme-ng's init, which hands over once it has mounted everything.

Its command goes on beside systemd, and the guest ends with it: nothing has to be shut down.
"""

import subprocess
from pathlib import Path

from krie.testing.lab.boot import Machine
from krie.testing.patience import wait_for

MACHINE = Machine(init_reads=Path(__file__).with_name("init.sh"))
"""Boots so that `hand_over` works."""
_WAITS = Path("/run/krie-lab-init")
_UNITS = Path("/run/systemd/system")
_SYSTEMD = "/lib/systemd/systemd --unit=basic.target --log-level=notice --log-target=console"
_LEFT_OUT = ("systemd-tmpfiles-setup.service", "systemd-tmpfiles-setup-dev.service", "systemd-firstboot.service")
"""What virtme-ng's init did before, or what would ask on the console."""
_UP = ("running", "degraded")


def hand_over() -> None:
    """In the guest: let systemd take over, and wait until it has reached basic.target."""
    _UNITS.mkdir(parents=True, exist_ok=True)
    for each in _LEFT_OUT:
        (_UNITS / each).symlink_to("/dev/null")
    _WAITS.write_text(f"{_SYSTEMD}\n")
    wait_for(lambda: _state() in _UP, _state)


def systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it; whether it went well is for the caller to look at."""
    return subprocess.run(["systemctl", "--no-pager", *arguments], capture_output=True, text=True, check=False)


def _state() -> str:
    return systemctl("is-system-running", "--wait").stdout.strip()
