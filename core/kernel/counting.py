"""A tiny BPF program that only counts its own runs: how KRIe tries what a kernel accepts and what really runs."""

from __future__ import annotations

import struct

from .program import AttachType


def instruction(code: int, registers: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    """One of a BPF program: opcode, registers (source << 4 | destination), offset, immediate value."""
    return struct.pack("<BBhi", code, registers, offset, immediate)


def returning(value: int) -> bytes:
    """Instructions of a program that returns `value` at once."""
    return instruction(0xB7, 0, 0, value) + instruction(0x95)


def counting(attach: AttachType, array_map: int, index: int) -> bytes:
    """Instructions of a program that adds one to a 64-bit element of an array map and lets everything pass."""
    lets_pass = 1 if attach is AttachType.CGROUP_SYSCTL else 0
    # The kernel attaches a program that calls bpf_override_return() only where that is allowed; this one never does.
    override = b"".join(
        (
            instruction(0x55, 0x01, 3, 0),  # if r1 != 0 skip 3: the count was just raised
            instruction(0xBF, 0x61),  # r1 = r6
            instruction(0xB7, 0x02, 0, 0),  # r2 = 0
            instruction(0x85, 0, 0, 58),  # bpf_override_return(r1, r2)
        )
        if attach is AttachType.KPROBE_OVERRIDE
        else ()
    )
    return b"".join(
        (
            instruction(0xBF, 0x16),  # r6 = r1, the context
            instruction(0x62, 0x0A, -4, index),  # *(u32 *)(r10 - 4) = index
            instruction(0xBF, 0xA2),  # r2 = r10
            instruction(0x07, 0x02, 0, -4),  # r2 += -4
            instruction(0x18, 0x11, 0, array_map) + instruction(0),  # r1 = map
            instruction(0x85, 0, 0, 1),  # r0 = bpf_map_lookup_elem(r1, r2)
            instruction(0x15, 0x00, 3 + len(override) // 8, 0),  # if r0 == 0 skip to the end
            instruction(0x79, 0x01, 0, 0),  # r1 = *(u64 *)r0
            instruction(0x07, 0x01, 0, 1),  # r1 += 1
            instruction(0x7B, 0x10, 0, 0),  # *(u64 *)r0 = r1
            override,
            returning(lets_pass),
        )
    )


def fetch_adding(array_map: int) -> bytes:
    """Instructions of a program that uses what an atomic addition returns (not on 5.10)."""
    return b"".join(
        (
            instruction(0x62, 0x0A, -4, 0),
            instruction(0xBF, 0xA2),
            instruction(0x07, 0x02, 0, -4),
            instruction(0x18, 0x11, 0, array_map) + instruction(0),
            instruction(0x85, 0, 0, 1),
            instruction(0x15, 0x00, 2, 0),
            instruction(0xB7, 0x01, 0, 1),  # r1 = 1
            instruction(0xDB, 0x10, 0, 1),  # r1 = atomic_fetch_add((u64 *)r0, r1)
            returning(0),
        )
    )


def walking(cred_offset: int, uid_offset: int) -> bytes:
    """Instructions of a program that follows pointers of the current task without a helper (not on 5.10)."""
    return (
        instruction(0x85, 0, 0, 158)  # r0 = bpf_get_current_task_btf()
        + instruction(0x79, 0x00, cred_offset)  # r0 = r0->cred
        + instruction(0x61, 0x00, uid_offset)  # r0 = r0->uid
        + returning(1)
    )


def setting_retval() -> bytes:
    """Instructions of a program on a cgroup that chooses the error of its refusal."""
    return (
        instruction(0xB7, 0x01, 0, -1)  # r1 = -EPERM
        + instruction(0x85, 0, 0, 187)  # bpf_set_retval(r1)
        + returning(1)
    )
