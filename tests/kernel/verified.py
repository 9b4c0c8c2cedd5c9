"""How many instructions the kernel's verifier looked at, in all programs that a process holds."""

from krie import Btf

from .descriptors import descriptions

_ALL, _EACH = 240_000, 15_000
"""The bars, since a start waits for the verifier. The observing agent of 6.12 has 229,000 in 115 programs, the largest
10,500."""
_ALL_OF_OLDER, _EACH_OF_OLDER = 620_000, 35_000
"""Without may_goto (011832b97b31) the verifier looks at each round of a loop. The same agent of 6.1 has 612,000, the
largest program 34,200."""
WHICH = "python -m tests.bench.verifier says which program it is"


def bars() -> tuple[int, int]:
    """For all programs together, and for each."""
    has_may_goto = Btf().offset("bpf_verifier_state", "may_goto_depth") is not None
    return (_ALL, _EACH) if has_may_goto else (_ALL_OF_OLDER, _EACH_OF_OLDER)


def verified_by_program(tgid: int) -> dict[int, int]:
    """By id of the program. Empty on kernels before 5.16 (aba64c7da983), which do not count."""
    return {
        int(each["prog_id"]): int(each["verified_insns"])
        for each in descriptions(tgid).values()
        if "verified_insns" in each
    }
