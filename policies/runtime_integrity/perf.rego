package krie.runtime_integrity

# METADATA
# title: An unnamed program puts a probe into the kernel
# description: |
#   By perf_event_open, as tracing tools do; a BPF program may then run there.
# custom:
#   id: PERF001
#   severity: medium
#   action: log
#   technique: T1014
#   seen: |
#     Nothing. perf, bpftrace and BCC's tools cause it where data.executables does not name them.
rules contains {"id": "PERF001", "action": "log"} if {
	input.event.kind == "runtime_integrity.perf_event_open"
	input.event.pmu == "kprobe"
	input.process.program == ""
}

# METADATA
# title: An ordinary user puts a probe into code
# description: |
#   Into the kernel, or into a file that others run. The kernel lets only those who have a capability do this.
# custom:
#   id: PERF002
#   severity: high
#   action: override
#   technique: T1068
#   seen: |
#     perf_event_open fails with EPERM. Users of tracing tools that were given CAP_PERFMON meet it.
rules contains {"id": "PERF002", "action": "override", "errno": 1} if {
	input.event.kind == "runtime_integrity.perf_event_open"
	input.event.probe
	input.process.euid != 0
}

# METADATA
# title: An unnamed program puts a probe into other programs
# description: |
#   A uprobe sees every process that runs the code, with what it holds in registers: passwords, and keys before they are
#   used.
# custom:
#   id: PERF003
#   severity: medium
#   action: log
#   technique: T1056
#   seen: |
#     Nothing. bpftrace and BCC's tools cause it where data.executables does not name them.
rules contains {"id": "PERF003", "action": "log"} if {
	input.event.kind == "runtime_integrity.perf_event_open"
	input.event.pmu == "uprobe"
	input.process.program == ""
}
