"""Numbers of bpf(2), with the kernel's names: commands, types of programs and of maps."""

from __future__ import annotations

from enum import IntEnum


class Command(IntEnum):
    """First argument of bpf(2)."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    PROG_TEST_RUN = 10
    PROG_GET_NEXT_ID = 11
    MAP_GET_NEXT_ID = 12
    PROG_GET_FD_BY_ID = 13
    MAP_GET_FD_BY_ID = 14
    OBJ_GET_INFO_BY_FD = 15
    RAW_TRACEPOINT_OPEN = 17
    MAP_FREEZE = 22
    LINK_CREATE = 28
    LINK_GET_NEXT_ID = 31
    ENABLE_STATS = 32


class ProgType(IntEnum):
    """`enum bpf_prog_type`, as far as KRIe loads such programs."""

    KPROBE = 2
    TRACEPOINT = 5
    PERF_EVENT = 7
    RAW_TRACEPOINT = 17
    CGROUP_SYSCTL = 23
    TRACING = 26
    LSM = 29


class MapType(IntEnum):
    """`enum bpf_map_type`, as far as KRIe looks into such maps."""

    HASH = 1
    ARRAY = 2
    PERCPU_ARRAY = 6
    LRU_PERCPU_HASH = 10
    ARRAY_OF_MAPS = 12
    RINGBUF = 27
