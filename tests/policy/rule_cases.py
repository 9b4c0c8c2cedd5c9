"""One event for each rule that KRIe ships, and one near it about which the rule says nothing."""

from typing import Any

from krie import Event
from krie.events.agent import (
    AGENT_EVENTS,
    Held,
    JournalState,
    Loss,
    Missed,
    PluginState,
    PolicyState,
    ProbeState,
    ServiceState,
    Trouble,
)
from krie.events.enforcement import ENFORCEMENT_EVENTS, Breaker, Cleared, Contained, Gap, Guarded
from krie.events.event import CONTAINER, EventTypes
from krie.kernel.features import Features
from krie.plugin.contract import joined
from krie.plugins.runtime_integrity.bpf_call import BpfCall
from krie.plugins.runtime_integrity.config import RuntimeIntegrityConfig
from krie.plugins.runtime_integrity.cred_tamper import CredTamper
from krie.plugins.runtime_integrity.hidden_module import HiddenModule
from krie.plugins.runtime_integrity.kernel_parameter import KernelParameter
from krie.plugins.runtime_integrity.module_load import ModuleLoad
from krie.plugins.runtime_integrity.module_unload import ModuleUnload
from krie.plugins.runtime_integrity.parameter_look import ParameterLook
from krie.plugins.runtime_integrity.perf_event_open import PerfEventOpen
from krie.plugins.runtime_integrity.plugin import RuntimeIntegrity
from krie.plugins.runtime_integrity.probe_register import ProbeRegister
from krie.plugins.runtime_integrity.ptrace import Ptrace
from krie.plugins.runtime_integrity.socket_filter import SocketFilter
from krie.plugins.runtime_integrity.sysctl_write import SysctlWrite
from krie.plugins.runtime_integrity.usermode_helper import UsermodeHelper
from krie.plugins.smep_smap.events import Activity, LostTrap, RegisterCheck
from krie.plugins.smep_smap.plugin import SmepSmap
from krie.plugins.syscall_table.events import Code, Hook, Wrapped
from krie.plugins.syscall_table.plugin import SyscallTable
from krie.testing.events import build

PLUGIN = RuntimeIntegrity()
SENSOR = joined(PLUGIN.krie_sensor(RuntimeIntegrityConfig(), Features()))
CHECKS = (RegisterCheck, LostTrap, Activity)
PLACES = (Hook, Code, Wrapped)
TYPES = EventTypes((*AGENT_EVENTS, *ENFORCEMENT_EVENTS, *SENSOR.events, *CHECKS, *PLACES))
EXTRA = {
    each.name: {
        *each.event.PROCESSES,
        *(PLUGIN.krie_facts(each.name) or ()),
        *(SmepSmap().krie_facts(each.name) or ()),
        *(SyscallTable().krie_facts(each.name) or ()),
    }
    for each in TYPES
}


def document_of(event: Event, target: str = "", **process: Any) -> tuple[str, dict[str, Any]]:
    """Its kind, and what rules are asked about."""
    event_type = TYPES[event.kind]
    facts: dict[str, Any] = {"kind": event_type.name, **event_type.json(event)}
    if isinstance(event, Ptrace):
        facts["target"] = {"program": target, "known": True}
    if isinstance(event, BpfCall):
        facts["attach_target"] = ""
    if isinstance(event, ProbeRegister):
        facts["owner"] = event.module or ("?" if event.handler == NOWHERE else "kernel" if event.handler else "")
    users = {"uid": event.uid, "euid": event.euid, "container": bool(event.context & CONTAINER)}
    about = {"program": "", "exe": "?", "exe_known": False, **users, **process}
    return event_type.name, {"event": facts, "process": about, "host": {}, "health": {}}


def write(name: str, before: int, after: int, **changes: Any) -> SysctlWrite:
    change = "lower" if after < before else "higher" if after > before else "same"
    texts = {"old": f"{before}\n", "new": f"{after}\n", "old_parsed": True, "new_parsed": True, "change": change}
    return build(SysctlWrite, name=name, **{**texts, "old_int": before, "new_int": after, **changes})


def unread(name: str, **changes: Any) -> SysctlWrite:
    return write(name, 1, 0, **{"new_int": 0, "new_parsed": False, "change": "unread", **changes})


def load(**fields: Any) -> BpfCall:
    return build(BpfCall, **{"command": "prog_load", "attr_known": True, "helpers_known": True, **fields})


def trace(**fields: Any) -> Ptrace:
    wanted = {"operation": "attach", "target_known": True, "target_tgid": 77, "target_uid": 1000, "uid": 1000, **fields}
    return build(Ptrace, **{"other_user": wanted["target_uid"] != wanted["uid"], "euid": wanted["uid"], **wanted})


def started(path: str, **fields: Any) -> UsermodeHelper:
    return build(UsermodeHelper, **{"path": path, "asks_for_module": path == "/sbin/modprobe", **fields})


def module(step: str = "file", **fields: Any) -> ModuleLoad:
    return build(ModuleLoad, step=step, **fields)


def unload(**fields: Any) -> ModuleUnload:
    return build(ModuleUnload, **{"step": "asked", "name": "dummy", **fields})


def filtered(**fields: Any) -> SocketFilter:
    return build(SocketFilter, **{"operation": "attach_filter", "family": "packet", **fields})


def perf(pmu: str = "cpu", **fields: Any) -> PerfEventOpen:
    return build(PerfEventOpen, **{"pmu": pmu, "probe": pmu in ("kprobe", "uprobe"), "euid": 0, **fields})


def probed(**fields: Any) -> ProbeRegister:
    return build(ProbeRegister, **{"mechanism": "kprobe", "operation": "register", **fields})


NOWHERE = 0xFFFF_FFFF_FFFF_0000
"""An address that is nobody's."""


def variable(**fields: Any) -> KernelParameter:
    known = {"state": "differs", "symbol": "kptr_restrict", "interface": "/proc/sys/kernel/kptr_restrict"}
    return build(KernelParameter, **{**known, **fields})


def hook(**fields: Any) -> Hook:
    return build(Hook, **{"where": "table", "target": "module", "trigger": "timer", **fields})


def check(*failed: str, **fields: Any) -> RegisterCheck:
    return build(RegisterCheck, failed=failed, **fields)


CASES = [
    (check("stack_user"), {"SMEP001"}, check()),
    (check("stack_kernel"), {"SMEP002"}, check("unknown_bits")),
    (check("return_user"), {"SMEP003"}, check("return_user", traced=True)),
    (check("return_text"), {"SMEP003"}, check("return_text", traced=True)),
    (check("return_call", "stack_user"), {"SMEP001", "SMEP003"}, check("return_call", traced=True)),
    (check("init_cred"), {"SMEP004"}, check()),
    (build(LostTrap, state="vanished"), {"SMEP005"}, build(LostTrap, state="unreadable")),
    (build(LostTrap, state="disarmed"), {"SMEP005"}, build(Activity)),
    (hook(), {"SYSCALL001"}, hook(where="idt")),
    (hook(where="dispatch", target="other"), {"SYSCALL001"}, hook(where="dispatch", target="none", restored=True)),
    (hook(own_module=True), {"SYSCALL001", "SYSCALL002"}, hook(own_module=True, restored=True)),
    (hook(trigger="module_init"), {"SYSCALL001"}, hook(trigger="module_init", restored=True)),
    (hook(trigger="text_poke"), {"SYSCALL001"}, hook(trigger="text_poke", restored=True)),
    (hook(where="idt", target="none"), {"SYSCALL003"}, hook(where="idt", restored=True)),
    (hook(where="dispatch", target="none"), {"SYSCALL003"}, hook(where="table", target="none")),
    (hook(target="kernel"), {"SYSCALL004"}, hook(where="idt", target="kernel", restored=True)),
    (hook(where="pointer"), {"SYSCALL004"}, hook(where="pointer", restored=True)),
    (build(Code), {"SYSCALL005"}, build(Code, restored=True)),
    (build(Code, section="list"), {"SYSCALL008"}, build(Code, section="module")),
    (build(Wrapped, target="module"), {"SYSCALL006"}, build(Wrapped, target="kernel")),
    (hook(restored=True), {"SYSCALL007"}, hook()),
    (build(Code, restored=True), {"SYSCALL007"}, build(Code)),
    (write("kernel/kptr_restrict", 1, 0), {"SYSCTL001"}, write("kernel/kptr_restrict", 1, 2)),
    (write("kernel/ftrace_enabled", 1, 0), {"SYSCTL001"}, write("kernel/ftrace_enabled", 0, 0)),
    (write("vm/unprivileged_userfaultfd", 0, 1), {"SYSCTL001"}, write("vm/unprivileged_userfaultfd", 1, 0)),
    # The kernel takes any number, and asks whether it is 0.
    (write("dev/tty/ldisc_autoload", 0, -1), {"SYSCTL001"}, write("dev/tty/ldisc_autoload", -1, 0)),
    (unread("kernel/kptr_restrict"), {"SYSCTL002"}, unread("kernel/core_uses_pid")),
    (write("kernel/kptr_restrict", 1, 0, file_pos=1), {"SYSCTL001"}, unread("kernel/kptr_restrict", change="none")),
    (
        write("kernel/modprobe", 0, 0, old="/sbin/modprobe\n", new="/tmp/x\n", new_parsed=False),
        {"SYSCTL003"},
        write("kernel/modprobe", 0, 0, old="/sbin/modprobe\n", new="/sbin/modprobe\n", new_parsed=False),
    ),
    (load(), {"BPF001"}, load(command="prog_get_next_id")),
    (load(helpers=("send_signal",)), {"BPF001", "BPF002"}, load(command="map_create", helpers=("send_signal",))),
    (load(prog_type="cgroup_sysctl"), {"BPF001", "BPF008"}, load(command="prog_detach", prog_type="cgroup_sysctl")),
    (load(command="link_create", prog_type="cgroup_sysctl"), {"BPF008"}, load(command="link_create")),
    (load(helpers_known=False), {"BPF001", "BPF007"}, load(command="link_create", helpers_known=False)),
    (load(command="obj_pin"), {"BPF005"}, load(command="obj_get")),
    (load(command="link_detach"), {"BPF006"}, load(command="link_create")),
    (trace(target_uid=0), {"PTRACE001"}, trace()),
    (trace(target_tgid=1), {"PTRACE002"}, trace(target_tgid=1, operation="traceme")),
    (trace(uid=0, euid=0), {"PTRACE003"}, trace(uid=0, euid=0, target_uid=0)),
    (module("memory"), {"MODULE001"}, module("linked")),
    (module(file_uid=1000), {"MODULE002", "MODULE003"}, module("memory", file_uid=1000)),
    (module(others_write=True), {"MODULE002", "MODULE003"}, module("linked", others_write=True)),
    (module(file_deleted=True), {"MODULE002", "MODULE003"}, module("memory")),
    (module(), {"MODULE003"}, module("linked")),
    (module(context=2), {"MODULE003", "MODULE004"}, module("linked", context=2)),
    (module(flags=("ignore_vermagic",)), {"MODULE003", "MODULE005"}, module("linked", flags=("compressed_file",))),
    (module("linked", taints=("unsigned",)), {"MODULE006"}, module("linked", taints=("out_of_tree",))),
    (unload(), {"MODULE007"}, unload(step="freed")),
    (unload(name="lkrg"), {"MODULE007", "MODULE008"}, unload(name="lkrg", step="freed")),
    (filtered(), {"SOCKET001"}, filtered(family="inet")),
    (perf("kprobe"), {"PERF001"}, perf("tracepoint")),
    (perf("uprobe"), {"PERF003"}, perf("breakpoint")),
    (perf("kprobe", euid=1000), {"PERF001", "PERF002"}, perf("cpu", euid=1000)),
    (probed(handler=NOWHERE), {"PROBE001"}, probed(handler=NOWHERE, operation="unregister")),
    (probed(symbol="kallsyms_lookup_name"), {"PROBE002"}, probed(symbol="do_exit")),
    (
        probed(mechanism="all_kprobes", operation="disarm"),
        {"PROBE003"},
        probed(mechanism="all_kprobes", operation="arm"),
    ),
    (
        probed(mechanism="ftrace", operation="found", module="x"),
        {"PROBE004"},
        probed(mechanism="livepatch", module="x"),
    ),
    (
        variable(symbol="ftrace_enabled", interface="/proc/sys/kernel/ftrace_enabled"),
        {"KPARAM001"},
        variable(symbol="ftrace_enabled", state="agrees"),
    ),
    (variable(), {"KPARAM002"}, variable(state="unwatched")),
    (variable(symbol="ftrace_disabled", interface=""), {"KPARAM003"}, variable()),
    (build(ParameterLook, state="differs"), {"KPARAM004"}, build(ParameterLook, state="agrees")),
    (build(HiddenModule, name="x", missing=("list",)), {"HIDDEN001"}, build(HiddenModule, name="x")),
    (build(CredTamper, operation="exec", changed=("users",)), {"CRED001"}, build(HiddenModule, name="x")),
    (started("/tmp/x"), {"HELPER001"}, started("/sbin/modprobe")),
    (started("/sbin/modprobe", others_write=True), {"HELPER002"}, started("/sbin/modprobe")),
    (started("/sbin/modprobe", file_uid=1), {"HELPER002"}, started("/tmp/x")),
    (started("/sbin/modprobe", file_deleted=True), {"HELPER002"}, started("/tmp/x")),
    (started("/sbin/modprobe", asks_for_module=False), {"HELPER003"}, started("/sbin/reboot")),
    (
        started("/sbin/request-key", other_variables=True),
        {"HELPER003"},
        started("/sbin/nfsdcltrack", other_variables=True),
    ),
    (build(Loss, cause="ring_full"), {"AGENT001"}, build(PolicyState, state="loaded")),
    (build(ProbeState, state="silent"), {"AGENT002"}, build(ProbeState, state="attached")),
    (build(PluginState), {"AGENT003"}, build(ProbeState, state="alive")),
    (build(PolicyState, state="refused"), {"AGENT004"}, build(PolicyState, state="loaded")),
    (build(PolicyState, state="failed"), {"AGENT014"}, build(PolicyState, state="loaded")),
    (build(Guarded), {"AGENT005"}, build(PolicyState, state="loaded")),
    (build(Contained), {"AGENT006"}, build(PolicyState, state="loaded")),
    (build(Breaker, state="tripped"), {"AGENT007"}, build(Breaker, state="rearmed")),
    (build(Gap), {"AGENT008"}, build(PolicyState, state="loaded")),
    (build(Cleared), {"AGENT009"}, build(PolicyState, state="loaded")),
    (build(Missed), {"AGENT010"}, build(PolicyState, state="loaded")),
    (build(Held, alike=1, over=1), {"AGENT011"}, build(Held, alike=1)),
    (build(JournalState, state="moved"), {"AGENT021"}, build(PolicyState, state="loaded")),
    (build(Guarded, attempt="program_opened"), {"AGENT041"}, build(PolicyState, state="loaded")),
    (build(Guarded, attempt="files_frozen"), {"AGENT043"}, build(PolicyState, state="loaded")),
    (build(Trouble), {"AGENT042"}, build(PolicyState, state="loaded")),
    (build(ServiceState, state="dropped"), {"AGENT031"}, build(ServiceState, state="well")),
]
