package krie.runtime_integrity

# METADATA
# title: A BPF program is loaded by a program without a name
# description: |
#   The loader is not in data.executables. Name the programs that load BPF on this machine there, but none that load
#   what their caller says, such as bpftool and bpftrace: BPF002 and BPF007 refuse nothing to who has a name.
# custom:
#   id: BPF001
#   severity: medium
#   action: log
#   technique: T1014
#   seen: |
#     Nothing. Tools such as bpftrace, container managers and systemd cause it where data.executables does not name
#     them.
rules contains {"id": "BPF001", "action": "log"} if {
	input.event.kind == "runtime_integrity.bpf"
	input.event.command == "prog_load"
	input.process.program == ""
}

# METADATA
# title: An unnamed program loads BPF that interferes with others
# description: |
#   The program calls helpers that send signals, change what kernel functions return, write to the memory of other
#   processes, or replace what is written to a sysctl: the tools of a BPF rootkit.
# custom:
#   id: BPF002
#   severity: critical
#   action: override
#   technique: T1014
#   seen: |
#     Loading the program fails with EPERM. Tools that use such helpers meet it where data.executables does not name
#     them, and so does `bpftool feature probe`, which tries every helper.
rules contains {"id": "BPF002", "action": "override", "errno": 1} if {
	input.event.kind == "runtime_integrity.bpf"
	input.event.command == "prog_load"
	count(input.event.helpers) > 0
	input.process.program == ""
}

# METADATA
# title: A named program loads BPF that interferes with others
# description: |
#   As BPF002, by a program of data.executables.
# custom:
#   id: BPF003
#   severity: medium
#   action: log
#   technique: T1014
#   seen: |
#     Nothing. Tracing tools that write to processes or send signals cause it.
rules contains {"id": "BPF003", "action": "log"} if {
	input.event.kind == "runtime_integrity.bpf"
	input.event.command == "prog_load"
	count(input.event.helpers) > 0
	input.process.program != ""
}

# METADATA
# title: A named program loads BPF that could not be read
# description: |
#   The probe could not read the call's attributes or all instructions, so BPF003 cannot judge it.
# custom:
#   id: BPF004
#   severity: medium
#   action: log
#   technique: T1014
#   seen: |
#     Nothing. Programs of more instructions than the probe looks at cause it: those of container networks, for example.
rules contains {"id": "BPF004", "action": "log"} if {
	input.event.kind == "runtime_integrity.bpf"
	input.event.command == "prog_load"
	input.event.helpers_known == false
	input.process.program != ""
}

# METADATA
# title: An unnamed program loads BPF that could not be read
# description: |
#   As BPF004, by a program that data.executables does not name. It is refused, since BPF002 cannot judge it: padding
#   or a change of the instructions meanwhile would hide what they call. For both rules it makes no difference whether
#   the program is loaded by a BPF program, with a token of a user namespace, or with a signature.
# custom:
#   id: BPF007
#   severity: high
#   action: override
#   technique: T1014
#   seen: |
#     Loading the program fails with EPERM. Tools that load large programs meet it where data.executables does not name
#     them: container networks, for example.
rules contains {"id": "BPF007", "action": "override", "errno": 1} if {
	input.event.kind == "runtime_integrity.bpf"
	input.event.command == "prog_load"
	input.event.helpers_known == false
	input.process.program == ""
}

# METADATA
# title: A BPF program is put where sysctls are written
# description: |
#   It is loaded for sysctls, or attached there. Behind KRIe's own such program it would undo what that refused, or have
#   the kernel take a write that KRIe judged as one that is ignored: without a helper, by its return value or the offset
#   of the write. By whom makes no difference, but for programs that data.sysctl_programs names.
# custom:
#   id: BPF008
#   severity: critical
#   action: override
#   technique: T1562.001
#   seen: |
#     Loading or attaching the program fails with EPERM. systemd-networkd from 257 on has one that watches sysctls, for
#     which data.executables and data.sysctl_programs name it; `bpftool feature probe` and `krie policy explain` beside
#     an agent that enforces meet it.
rules contains {"id": "BPF008", "action": "override", "errno": 1} if {
	input.event.kind == "runtime_integrity.bpf"
	input.event.command in {"prog_load", "prog_attach", "link_create"}
	input.event.prog_type == "cgroup_sysctl"
	not is_sysctl_program
}

# METADATA
# title: An unnamed program pins a BPF object
# description: |
#   A program, map or link that is pinned outlives the process that made it: how BPF malware stays.
# custom:
#   id: BPF005
#   severity: medium
#   action: log
#   technique: T1014
#   seen: |
#     Nothing. Container networks and load balancers cause it where data.executables does not name them.
rules contains {"id": "BPF005", "action": "log"} if {
	input.event.kind == "runtime_integrity.bpf"
	input.event.command == "obj_pin"
	input.process.program == ""
}

# METADATA
# title: An unnamed program takes BPF programs from where they run
# description: |
#   It detaches a link or a program, or puts another program into a link: this blinds others' filters and sensors.
# custom:
#   id: BPF006
#   severity: medium
#   action: log
#   technique: T1562.001
#   seen: |
#     Nothing. Tools that manage BPF programs cause it where data.executables does not name them.
rules contains {"id": "BPF006", "action": "log"} if {
	input.event.kind == "runtime_integrity.bpf"
	input.event.command in {"link_detach", "link_update", "prog_detach"}
	input.process.program == ""
}

is_sysctl_program if {
	some name in data.sysctl_programs
	input.process.program == name
}
