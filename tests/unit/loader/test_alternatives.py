"""The first alternative that can be attached stays attached; only a silent one is given up."""

import errno
from collections.abc import Iterable
from dataclasses import replace

import pytest
from krie import AttachType, Program
from krie.errors import AttachError, KernelError
from krie.loader.alternatives import (
    ALIVE,
    NOT_ALLOWED,
    NOT_NEEDED,
    UNPROVEN,
    Alternatives,
    Held,
    Option,
    silent,
)


def program(name: str, attach: AttachType = AttachType.LSM, *, optional: bool = False) -> Program:
    return Program(attach, name, f"p_{name}", optional=optional)


def option(name: str, *programs: Program, every_syscall: bool = False, canary: bool = True) -> Option:
    return Option("p.probe", name, programs, every_syscall, canary)


class Kernel:
    """Attaches all but what it refuses; each program has two descriptors."""

    def __init__(self, **refused: int) -> None:
        """Error numbers by target."""
        self.refused = refused
        self.tried: list[str] = []
        self.open: set[int] = set()

    def hold(self, program: Program) -> list[int]:
        self.tried.append(program.target)
        if number := self.refused.get(program.target, 0):
            raise AttachError(f"attaching {program.target}", number)
        new = [10 * len(self.tried), 10 * len(self.tried) + 1]
        self.open.update(new)
        return new

    def release(self, held: Held) -> None:
        self.open.difference_update(held.descriptors)


def alternatives(
    kernel: Kernel, *options: Option, allow: bool = False, refused: dict[AttachType, str] | None = None
) -> Alternatives:
    by_probe: dict[str, tuple[Option, ...]] = {}
    for each in options:
        by_probe[each.probe] = (*by_probe.get(each.probe, ()), each)
    return Alternatives(by_probe, kernel.hold, allow_every_syscall=allow, refused=refused or {}, release=kernel.release)


def targets(held: Iterable[Held]) -> list[str]:
    return [each.program.target for each in held]


def test_the_first_one_that_works_is_taken_and_no_other_one_tried() -> None:
    kernel = Kernel(a=errno.EPERM)
    made = alternatives(kernel, option("one", program("a")), option("two", program("b")), option("three", program("c")))
    (held,) = made.take()
    assert (held.program.target, set(held.descriptors)) == ("b", kernel.open)
    assert kernel.tried == ["a", "b"]
    assert made.chosen == {"p.probe": "two"}
    why = made.reasons["p.probe"]
    assert "EPERM" in why["one"] or "not permitted" in why["one"]
    assert (why["two"], why["three"]) == (ALIVE, NOT_NEEDED)


def test_what_is_known_to_be_in_vain_is_not_tried() -> None:
    kernel = Kernel()
    made = alternatives(
        kernel,
        option("lsm", program("a")),
        option("slow", program("b", AttachType.RAW_TRACEPOINT), every_syscall=True),
        option("kprobe", program("c", AttachType.KPROBE), canary=False),
        refused={AttachType.LSM: "bpf is not in lsm="},
    )
    assert targets(made.take()) == kernel.tried == ["c"]
    assert made.reasons["p.probe"] == {"lsm": "bpf is not in lsm=", "slow": NOT_ALLOWED, "kprobe": UNPROVEN}


def test_what_will_be_wanted_is_known_before() -> None:
    lsm, kprobe = program("a"), program("c", AttachType.KPROBE)
    made = alternatives(
        Kernel(),
        option("lsm", lsm),
        option("kprobe", kprobe),
        Option("p.other", "kprobe", (replace(kprobe, optional=True), program("d", AttachType.KPROBE)), False, True),
        refused={AttachType.LSM: "bpf is not in lsm="},
    )
    assert [each.target for each in made.wanted] == ["c", "d"]
    assert targets(made.take()) == ["c", "d"]


def test_one_that_cannot_be_let_go_keeps_no_other_one() -> None:
    kernel = Kernel(c=errno.EINVAL)

    def release(held: Held) -> None:
        kernel.release(held)
        raise KernelError("deleting", errno.EIO)

    one = option("one", program("a"), program("b"), program("c"))
    made = Alternatives({"p.probe": (one,)}, kernel.hold, allow_every_syscall=False, refused={}, release=release)
    assert made.take() == []
    assert (kernel.open, made.attached) == (set(), ())


def test_programs_for_every_system_call_are_taken_where_that_is_allowed() -> None:
    made = alternatives(Kernel(), option("slow", program("b"), every_syscall=True), allow=True)
    assert targets(made.take()) == ["b"]


def test_half_of_an_alternative_is_let_go_again() -> None:
    kernel = Kernel(b=errno.EINVAL)
    made = alternatives(kernel, option("one", program("a"), program("b")))
    assert made.take() == []
    assert (kernel.open, made.chosen, made.attached) == (set(), {}, ())


def test_optional_programs_may_find_no_function() -> None:
    kernel = Kernel(gone=errno.ENOENT)
    made = alternatives(kernel, option("one", program("a"), program("gone", optional=True)))
    assert targets(made.take()) == ["a"]
    assert targets(Held(each, ()) for each in made.attached) == ["a"]
    assert made.reasons["p.probe"]["one"] == f"{ALIVE}; this kernel has no gone"


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EPERM])
def test_an_alternative_needs_one_of_its_optional_programs(number: int) -> None:
    kernel = Kernel(gone=number)
    made = alternatives(kernel, option("one", program("gone", optional=True)))
    assert (made.take(), made.chosen) == ([], {})


def test_a_program_of_several_probes_is_attached_once_and_kept_while_one_needs_it() -> None:
    kernel = Kernel()
    shared = program("shared")
    other = Option("p.other", "one", (shared,), False, True)
    made = alternatives(kernel, option("one", shared), option("two", program("b")), other)
    assert targets(made.take()) == ["shared"]
    assert targets(made.fall_back({"p.probe": "silent"})) == ["b"]
    assert [each.target for each in made.attached] == ["b", "shared"]
    assert made.fall_back({"p.other": "silent"}) == []
    assert [each.target for each in made.attached] == ["b"]


def test_a_program_of_the_next_alternative_too_stays_attached() -> None:
    kernel = Kernel()
    made = alternatives(
        kernel,
        option("one", program("a"), program("both")),
        option("two", program("b"), program("both", optional=True)),
    )
    made.take()
    assert targets(made.fall_back({"p.probe": "silent"})) == ["b"]
    assert kernel.tried == ["a", "both", "b"]
    assert [each.target for each in made.attached] == ["b", "both"]


def test_another_way_to_attach_the_same_function_is_another_program() -> None:
    kernel = Kernel()
    lsm = Program(AttachType.LSM, "a", "p_same")
    fmod_ret = Program(AttachType.FMOD_RET, "security_a", "p_same")
    made = alternatives(kernel, option("lsm", lsm), option("fmod_ret", fmod_ret))
    made.take()
    assert lsm.label == fmod_ret.label
    assert targets(made.fall_back({"p.probe": "silent"})) == ["security_a"]
    assert made.attached == (fmod_ret,)


def test_a_silent_one_falls_back_to_what_was_not_tried_yet() -> None:
    kernel = Kernel(b=errno.EPERM)
    made = alternatives(kernel, option("one", program("a")), option("two", program("b")), option("three", program("c")))
    made.take()
    why = silent([program("a")])
    assert targets(made.fall_back({"p.probe": why})) == ["c"]
    assert made.chosen == {"p.probe": "three"}
    assert made.reasons["p.probe"]["one"] == why == "attached, but its canary never arrived: lsm a"
    assert made.fall_back({"p.probe": why}) == []
    assert made.chosen == {}


def test_an_error_that_is_none_of_the_kernel_is_not_taken_for_an_answer() -> None:
    def hold(_: Program) -> list[int]:
        raise ZeroDivisionError

    made = Alternatives(
        {"p.probe": (option("one", program("a")),)}, hold, allow_every_syscall=False, refused={}, release=print
    )
    with pytest.raises(ZeroDivisionError):
        made.take()
