"""How many instructions the kernel's verifier looked at, in all programs that a process holds."""

from .descriptors import descriptions

ALL, EACH = 410_000, 60_000
"""The bars. A start waits for the verifier. All should be 250,000: the observing agent of 6.12 had 281,000 until
programs' identity, the agent's guard and 22 more guarded operations came, and has 402,000 with them, comparisons where
credentials are copied, and programs that the kernel starts."""
WHICH = "python -m tests.bench.verifier says which program it is"


def verified_by_program(tgid: int) -> dict[int, int]:
    """By id of the program. Empty on kernels before 5.16 (aba64c7da983), which do not count."""
    return {
        int(each["prog_id"]): int(each["verified_insns"])
        for each in descriptions(tgid).values()
        if "verified_insns" in each
    }
