"""Who covers what /proc shows of him is killed all the same, and told truthfully of. In guests only."""

import subprocess

import pytest
from krie.testing.agent import RunningAgent

from ..enforcing import COVERED, Run
from .answers import of, status

pytestmark = pytest.mark.needs("guest", "kprobe")
MOUNT = """
def cover(source, file, type_, flags):
    target = f"/proc/{os.getpid()}/{file}".encode()
    assert libc.mount(source, target, type_, flags, None) == 0, ctypes.get_errno()

"""
BIND = 0x1000
COVERS = {
    "its directory": "cover(b'none', '', b'tmpfs', 0)",
    "its state by nothing": f"cover(b'/dev/null', 'stat', None, {BIND})",
    "its state by who gives no answer": f"""
os.mkfifo(f"/run/fifo-{{os.getpid()}}")
cover(f"/run/fifo-{{os.getpid()}}".encode(), "stat", None, {BIND})
os.unlink(f"/run/fifo-{{os.getpid()}}")
""",
}


@pytest.mark.parametrize("cover", COVERS.values(), ids=COVERS)
def test_whoever_covers_his_files_in_proc_is_killed(enforcing: RunningAgent, victim: Run, cover: str) -> None:
    """The agent looks there whether it is still he; what he mounts there says nothing, or something else."""
    deed = f"print(os.getpid(), flush=True); write({COVERED}); time.sleep(60); print('lived')"
    with pytest.raises(subprocess.CalledProcessError) as killed:
        victim(f"{MOUNT}{cover}\n{deed}")
    assert (killed.value.returncode, killed.value.stderr) == (-9, "")
    (line,) = of(enforcing, int(killed.value.stdout), "runtime_integrity.sysctl_write")
    assert line["done"] in (["poisoned", "killed"], ["poisoned", "signalled"])
    assert status(enforcing)["modes"]["example"] == "enforce"  # the agent answers
