"""How many instructions the kernel's verifier looked at, in all programs that a process holds."""

from pathlib import Path

ALL, EACH = 300_000, 60_000
"""The bars. A start waits for the verifier; the next plugin needs some of it, too."""
WHICH = "python -m tests.bench.verifier says which program it is"


def verified_by_program(tgid: int) -> dict[int, int]:
    """By id of the program. Empty on kernels before 5.16 (aba64c7da983), which do not count."""
    found: dict[int, int] = {}
    for descriptor in Path("/proc", str(tgid), "fdinfo").iterdir():
        try:
            said = descriptor.read_text()
        except FileNotFoundError:  # the agent goes on: what it opened for a moment is closed since it was listed
            continue
        lines = (line.partition(":") for line in said.splitlines())
        values = {name: value.strip() for name, _, value in lines}
        if "verified_insns" in values:
            found[int(values["prog_id"])] = int(values["verified_insns"])
    return found
