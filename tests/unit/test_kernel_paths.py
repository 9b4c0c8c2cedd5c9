"""Nobody in the agent opens what is below /proc or /sys by its path, where whoever may mount can cover it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = {"cli", "review", "template", "testing"}
"""Folders of core/ that are no part of the agent."""
EXCEPTIONS = {
    # Canaries: what a probe is to see is that something is opened, executed or entered, not what it holds.
    "core/enforce/containment.py": {"/proc/self", "/sys/kernel/uevent_seqnum"},
    "core/enforce/guard_sensor.py": {"/proc/self"},
    "core/processes/sensor.py": {"/proc/self/mem"},
    "plugins/cfi/act.py": {"/proc/self/fd/"},
    "plugins/runtime_integrity/cred_tamper.py": {"/proc/self/fd/", "/proc/"},
    "plugins/runtime_integrity/module_load.py": {"/sys/kernel/uevent_seqnum"},
    "plugins/runtime_integrity/probe_register.py": {"/proc/self/fd/"},
    "plugins/runtime_integrity/ptrace.py": {"/proc/"},
    "plugins/runtime_integrity/sysctl_write.py": {"/proc/sys/kernel/ostype"},
    "plugins/smep_smap/functions.py": {"/proc/thread-self/ns/uts"},
    "plugins/syscall_table/handlers.py": {"/proc/self/task"},
    # Names that are compared or told, and not opened.
    "core/kernel/interception.py": {"/proc/kallsyms"},
    "core/processes/binding.py": {"/proc/"},
    "core/processes/proc.py": {"/proc/"},
    # Where something is mounted: to guard that, or to mount there in a namespace of its own. See `krie.kernel.mounts`.
    "core/agent/guarding.py": {
        *("/proc", "/sys", "/sys/fs/cgroup", "/sys/fs/bpf", "/sys/kernel/debug", "/sys/kernel/tracing"),
    },
    "core/kernel/mounts.py": {"/sys/fs/bpf"},
}
NAMES_ONLY = {"core/kernel_files.py", "core/procfs.py", "plugins/runtime_integrity/parameters.py"}
"""These tell a `KernelFile` what is mounted where, or which one to take."""


def test_all_goes_by_kernel_files() -> None:
    sources = [*ROOT.glob("core/**/*.py"), *ROOT.glob("plugins/**/*.py")]
    found: dict[str, set[str]] = {}
    for file in sources:
        name = str(file.relative_to(ROOT))
        if name.split("/")[1] not in COMMANDS and name not in NAMES_ONLY:
            for path in opened_by_path(file.read_text()):
                found.setdefault(name, set()).add(path)
    assert found == EXCEPTIONS


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('KernelFile("/proc/modules")', []),
        ('KernelFile(f"/proc/{tgid}/smaps")', []),
        ('"""/proc/modules"""', []),
        ('x = "never in /proc/modules"', []),
        ('Path("/proc/modules")', ["/proc/modules"]),
        ('Path("/sys", "module")', ["/sys"]),
        ('open(f"/proc/{tgid}/smaps")', ["/proc/"]),
        ('open(b"/sys/module")', ["/sys/module"]),
        ('KernelFile(str(Path("/proc/modules")))', ["/proc/modules"]),
    ],
)
def test_what_is_found(source: str, found: list[str]) -> None:
    assert list(opened_by_path(source)) == found


def opened_by_path(source: str) -> Iterator[str]:
    """Begins of paths below /proc and /sys in the source that are neither a `KernelFile` nor a text by itself."""
    tree = ast.parse(source)
    fine: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            fine.add(node.value)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "KernelFile":
            fine.update(part for each in node.args for part in (each, *getattr(each, "values", ())))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and node not in fine:
            text = node.value if isinstance(node.value, str) else node.value.decode(errors="replace")
            if text in ("/proc", "/sys") or text.startswith(("/proc/", "/sys/")):
                yield text
