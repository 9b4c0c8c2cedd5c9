"""Why the kernel refuses to root what root may do elsewhere."""

from __future__ import annotations

import errno

from .kernel_files import AnyFile, KernelFile

_ROOT = KernelFile("/")
REFUSALS = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS})
_CAPABILITIES = {21: "CAP_SYS_ADMIN", 38: "CAP_PERFMON", 39: "CAP_BPF"}
"""What loading and attaching needs, by number. The first one stands for the others, too."""
_WHOLE = ["0", "0", "4294967295"]
_SECCOMP_FILTER = "2"


def why_refused(root: AnyFile = _ROOT) -> str:
    """All that may be the reason here, in one text. `root`: where /proc and /sys are."""
    status = dict(line.split(":", 1) for line in (root / "proc/self/status").read_text().splitlines())
    found = []
    if (root / "proc/self/uid_map").read_text().split() != _WHOLE:
        found.append("this is root of a user namespace only")
    effective = int(status["CapEff"], 16)
    missing = [name for number, name in _CAPABILITIES.items() if not effective >> number & 1]
    if "CAP_SYS_ADMIN" in missing:
        found.append(f"this process lacks {', '.join(missing)}, as in a container that is not privileged")
    if status.get("Seccomp", "").strip() == _SECCOMP_FILTER:
        found.append("a seccomp filter (of a container, or SystemCallFilter= of a unit) restricts its system calls")
    if lockdown := locked_down(root):
        found.append(f"the kernel is locked down ({lockdown})")
    return "; ".join(found) or "a security module may forbid it: see the kernel's log (dmesg)"


def locked_down(root: AnyFile = _ROOT) -> str:
    """The mode of the kernel's lockdown, `integrity` or `confidentiality`; empty where it has none or does not say."""
    try:
        modes = (root / "sys/kernel/security/lockdown").read_text()
    except OSError:
        return ""
    mode = modes.partition("[")[2].partition("]")[0]
    return "" if mode == "none" else mode
