"""Assembles what BCC compiles: the translation unit of all sensors, and the private include tree that stands in for
kernel headers.

    include/krie_types.h    the kernel's types that the sources read, sliced out of its BTF, and KRIE_HAS_ macros
    include/krie_events.h   the records, from the event classes
    include/krie_shared.h   keys and values of maps that programs share with user space
    include/*.h             the core's own headers
    main text               prelude, verdicts, tables, the functions of each event, each sensor's source with #line

All alternatives of all probes are compiled. The unit depends on the sources and on the kernel's types, and on nothing
else of a machine: sizes of maps are given when these are made (`krie.loader.compiled`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from ..events.core_maps import CONSTANTS, STRUCTS
from ..events.event import Event
from ..events.layout import layout_of
from ..events.shared import declarations
from ..events.table_layout import C_DEFINES, Table
from ..events.wire import NAME_BYTES
from ..kernel.btf import Btf
from ..kernel.dispatch import C_DEFINES as DISPATCH_DEFINES
from .record_source import RecordSource, record_functions

_USES = re.compile(
    r"\bKRIE_(?:READ|LOAD|ADDRESS)\(\s*(\w+)\s*,(?:[^()]|\([^()]*\))*?,\s*([a-z_][\w.]*)((?:\[\w+\])?[\w.\[\]]*)\s*\)"
)
_OFFSETOF = re.compile(r"\b(?:__builtin_)?offsetof\(struct (\w+), ([a-z_][\w.]*)\)")
_HAS = re.compile(r"\bKRIE_HAS_([A-Za-z0-9]\w*?)__(\w+)\b")
_PLACE = re.compile(r'^#line 1 ".*"$', re.MULTILINE)
_TELLTALES = {
    # Each came with what is asked for or after it: 5.13 after 5.12 (5ca419f2864a), 5.18 (b44123b4a3dc), 5.15 in the
    # same series (a396eda5517a).
    "KRIE_HAS_FETCH_ADD": "BPF_FUNC_for_each_map_elem",
    "KRIE_HAS_SET_RETVAL": "BPF_FUNC_set_retval",
    "KRIE_HAS_TASK_BTF": "BPF_FUNC_task_pt_regs",
}
"""What programs may use, by the value of `enum bpf_func_id` in a kernel's BTF that tells it; see `krie.Features`."""
_CORE_TYPES = ("upid",)
"""Types that the core's C uses whole."""

_INCLUDED = ("krie.h", "verifier.h", "task.h", "file.h", "header.h", "syscall.h")
"""Headers of the core, in this order: they touch no map."""
_PASTED = ("prelude.bpf.c", "image.bpf.c", "budget.bpf.c", "dispatch.bpf.c", "verdict.bpf.c", "table.bpf.c")
"""Files of the core that are pasted in front of the sensors' own."""
_VERSION = "2"
"""Of what is compiled and how it is kept, as far as nothing below shows that."""
_VERDICTS = 8192
"""Processes that can be poisoned, and verdicts that can stand, at a time."""
_IMAGES = 65536
"""Processes whose executable is known in the kernel: as many as the agent's own table holds by default."""

_BCC_HEADERS = """linux/bpf_common.h linux/log2.h asm/page.h uapi/linux/if_ether.h uapi/linux/if_packet.h
uapi/linux/if_arp.h uapi/linux/ip.h uapi/linux/ipv6.h uapi/linux/tcp.h uapi/linux/udp.h uapi/linux/ptrace.h
uapi/linux/in.h uapi/linux/icmp.h uapi/linux/bpf.h""".split()
"""Kernel headers that BCC's own prologue includes. What it needs of them is in `_TYPES` and in the slice."""
_BCC_TYPES = "pt_regs sockaddr_un iphdr ipv6hdr tcphdr udphdr ethhdr icmphdr".split()
"""Kernel types that BCC's own prologue uses."""

_DEFINED_BY_BCC = frozenset(
    """__sk_buff bpf_adj_room_mode bpf_attach_type bpf_attr bpf_btf_info bpf_cgroup_dev_ctx bpf_cgroup_iter_order
    bpf_cgroup_storage_key bpf_check_mtu_flags bpf_check_mtu_ret bpf_cmd bpf_cpumap_val bpf_devmap_val bpf_dynptr
    bpf_fib_lookup bpf_flow_keys bpf_func_id bpf_func_info bpf_hdr_start_off bpf_insn bpf_iter_link_info bpf_line_info
    bpf_link_info bpf_link_type bpf_list_head bpf_list_node bpf_lpm_trie_key bpf_lwt_encap_mode bpf_map_info
    bpf_map_type bpf_perf_event_value bpf_pidns_info bpf_prog_info bpf_prog_type bpf_raw_tracepoint_args
    bpf_redir_neigh bpf_ret_code bpf_sk_lookup bpf_sock bpf_sock_addr bpf_sock_ops bpf_sock_tuple bpf_sockopt
    bpf_spin_lock bpf_stack_build_id bpf_stack_build_id_status bpf_stats_type bpf_sysctl bpf_task_fd_type bpf_tcp_sock
    bpf_timer bpf_tunnel_key bpf_xdp_sock bpf_xfrm_state btf_ptr sk_action sk_msg_md sk_reuseport_md xdp_action
    xdp_md""".split()
)
"""Types of the kernel's UAPI that BCC 0.26 brings itself; a second definition would not compile."""

_TYPES = """#ifndef KRIE_LINUX_TYPES_H
#define KRIE_LINUX_TYPES_H
typedef signed char s8; typedef unsigned char u8; typedef short s16; typedef unsigned short u16;
typedef int s32; typedef unsigned int u32; typedef long long s64; typedef unsigned long long u64;
typedef s8 __s8; typedef u8 __u8; typedef s16 __s16; typedef u16 __u16;
typedef s32 __s32; typedef u32 __u32; typedef s64 __s64; typedef u64 __u64;
typedef __u16 __be16; typedef __u32 __be32; typedef __u64 __be64; typedef __u32 __wsum; typedef __u16 __sum16;
typedef _Bool bool; typedef unsigned long size_t; typedef unsigned long uintptr_t;
#define true 1
#define false 0
#define NULL ((void *)0)
#define PAGE_SIZE 4096
#define __packed __attribute__((packed))
#define __aligned_u64 __u64 __attribute__((aligned(8)))
#endif
"""


@dataclass(frozen=True, slots=True)
class CFile:
    """One file of BPF C."""

    place: str
    """Its path, for diagnostics."""
    text: str


@dataclass(frozen=True, slots=True)
class SensorSource:
    """One sensor's share of the translation unit."""

    name: str
    files: tuple[CFile, ...]
    events: tuple[RecordSource, ...]
    programs: tuple[str, ...]
    """Labels of the programs of all alternatives."""
    types: tuple[str, ...] = ()
    defines: tuple[tuple[str, int], ...] = ()
    shared: str = ""
    """The C of its structs that are not records."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The assembled main text and its headers, with the order of its programs, kinds and checked fields."""

    text: str
    headers: Mapping[str, str]
    """Those that depend on no kernel, by their path in the include tree."""
    types: tuple[str, ...]
    """Types of the kernel that are cut out of its BTF."""
    macros: tuple[str, ...]
    """What this kernel has: KRIE_HAS_..."""
    programs: tuple[str, ...]
    """Labels of programs in order of their index in the map `krie_alive`."""
    kinds: tuple[int, ...]
    """Kinds in order of their slot in the map `krie_counts`."""
    sensors: tuple[str, ...]
    """Sensors in order of their index in the map `krie_enforcing`."""
    fields: tuple[tuple[str, str], ...]
    """(type, field) in order of their index in the map `krie_offsets`."""

    def entries(self, ring_bytes: int) -> dict[str, int]:
        """Sizes of the maps that the unit leaves open, for `krie.loader.compiled.instantiate`."""
        return {"krie_ring": ring_bytes, "krie_alive": max(1, len(self.programs))}

    def key(self, btf: Btf, flags: Iterable[str]) -> str:
        """Names what is compiled, on whatever machine and wherever KRIe lies there: not what compiles it."""
        digest = hashlib.sha256()
        slice_ = btf.digest(self.types, without=_DEFINED_BY_BCC)
        text = _PLACE.sub("", self.text)
        for part in (_VERSION, slice_, text, *flags, *self.macros, *(f"{k}\0{v}" for k, v in self.headers.items())):
            digest.update(f"{len(part)}:{part}".encode())
        return digest.hexdigest()

    def write(self, root: Path, btf: Btf) -> None:
        """Write the include tree that BCC_KERNEL_SOURCE points at."""
        (root / "arch/x86/include").mkdir(parents=True)
        for name, text in self.headers.items():
            header = root / "include" / name
            header.parent.mkdir(parents=True, exist_ok=True)
            header.write_text(text)
        has = [f"#define {each} 1" for each in self.macros]
        types = btf.definitions(self.types, without=_DEFINED_BY_BCC)
        (root / "include/krie_types.h").write_text("\n".join([*has, types]))


def core_file(name: str) -> CFile:
    """One of the core's own C files."""
    resource = files("krie.bpf").joinpath(name)
    return CFile(str(resource), resource.read_text())


def fields_read(text: str) -> frozenset[tuple[str, str]]:
    """The (type, field) pairs that a source reads, as far as they are plain paths without an index."""
    found = {(match[1], match[2].rstrip(".")) for match in _USES.finditer(text)}
    return frozenset(found | {(match[1], match[2]) for match in _OFFSETOF.finditer(text)})


def assemble(
    sensors: Iterable[SensorSource], btf: Btf, *, trial: bool = False, without: frozenset[str] = frozenset()
) -> Unit:
    """Assemble the main text. Fields that this kernel lacks are not checked here: the compiler names them.

    `trial`: with the programs that `krie policy verify` runs, and without those of the sensors. `without`: macros of
    what this kernel's BTF promises and its verifier refuses.
    """
    sensors = tuple(sorted(sensors, key=lambda sensor: sensor.name))  # whatever order the configuration names them in
    sources = () if trial else tuple(file for sensor in sensors for file in sensor.files)
    texts = (*(core_file(each).text for each in (*_INCLUDED, *_PASTED)), *(each.text for each in sources))
    read = {pair for text in texts for pair in fields_read(text)}
    asked = {name for sensor in sensors for name in sensor.types}
    types = sorted(({type_ for type_, _ in read} | asked | set(_BCC_TYPES) | set(_CORE_TYPES)) - _DEFINED_BY_BCC)
    programs = tuple(label for sensor in sensors for label in sensor.programs)
    records = tuple(record for sensor in sensors for record in sensor.events)
    fields = tuple(sorted(pair for pair in read if btf.offset(*pair) is not None))
    lines = ["#include <linux/types.h>"]
    constants = {"KRIE_NAME_BYTES": NAME_BYTES, **CONSTANTS, **C_DEFINES, **DISPATCH_DEFINES}
    lines += [f"#define {name} {value}" for name, value in constants.items()]
    lines += [f"#define KRIE_VERDICTS {_VERDICTS}", f"#define KRIE_IMAGES {_IMAGES}"]
    lines += [f"#define KRIE_SENSORS {max(1, len(sensors))}"]
    lines += [f"#define KRIE_SENSOR_{sensor.name.upper()} {index}" for index, sensor in enumerate(sensors)]
    lines += [f"#define KRIE_SLOTS {max(1, len(records))}"]
    lines += [f"#define {name} {value}" for sensor in sensors for name, value in sensor.defines]
    lines += [f"#include <{name}>" for name in ("krie_types.h", "krie_shared.h", "krie_events.h", *_INCLUDED)]
    for name in _PASTED:
        lines += _pasted(core_file(name))
    lines += [record_functions(slot, record, trial=trial) for slot, record in enumerate(records)]
    lines += [_offsets_program(fields)]
    for file in sources:
        lines += _pasted(file)
    return Unit(
        "\n".join(lines) + "\n",
        _headers(records, sensors),
        tuple(types),
        tuple(each for each in _macros(texts, btf) if each not in without),
        programs,
        tuple(record.kind for record in records),
        tuple(each.name for each in sensors),
        fields,
    )


def _headers(records: Iterable[RecordSource], sensors: Iterable[SensorSource]) -> dict[str, str]:
    return {
        **dict.fromkeys(_BCC_HEADERS, "#include <linux/types.h>\n"),
        "linux/types.h": _TYPES,
        "linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n",
        "linux/version.h": "#define LINUX_VERSION_CODE 0\n"
        "#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))\n",
        "krie_shared.h": "\n".join([declarations((*STRUCTS, Table)), *(each.shared for each in sensors)]),
        "krie_events.h": "\n".join([layout_of(Event).c_struct("krie_header"), *(each.declaration for each in records)]),
        **{name: core_file(name).text for name in _INCLUDED},
    }


def _macros(texts: Iterable[str], btf: Btf) -> tuple[str, ...]:
    asked = {(match[1], match[2]) for text in texts for match in _HAS.finditer(text)}
    has = [f"KRIE_HAS_{type_}__{field}" for type_, field in sorted(asked) if btf.offset(type_, field) is not None]
    helpers = btf.values("bpf_func_id")
    return (*(macro for macro, helper in _TELLTALES.items() if helper in helpers), *has)


def _pasted(file: CFile) -> list[str]:
    return [f'#line 1 "{file.place}"', file.text, '#line 1 "generated"']


def _offsets_program(fields: tuple[tuple[str, str], ...]) -> str:
    """A program that says where the generated code reads each field, behind a pointer that clang cannot see through."""
    stores = "\n".join(
        f"	seen->offset[{index}] = (u64)KRIE_ADDRESS({type_}, opaque, {field}) - opaque;"
        for index, (type_, field) in enumerate(fields)
    )
    return f"""
struct krie_offsets {{ u64 opaque; u64 offset[{max(1, len(fields))}]; }};
BPF_ARRAY(krie_offsets, struct krie_offsets, 1);
int krie_check_offsets(struct bpf_raw_tracepoint_args *ctx)
{{
	u32 zero = 0;
	struct krie_offsets *seen = krie_offsets.lookup(&zero);

	if (!seen)
		return 0;
	u64 opaque = seen->opaque;
{stores}
	return 0;
}}
"""
