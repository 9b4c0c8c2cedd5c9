package krie.runtime_integrity

# METADATA
# title: A BPF program is loaded by a program without a name
# description: |
#   The loader is none of data.executables. Name the tools that load BPF on this machine there.
# custom: {id: BPF001, severity: medium, action: log}
rules contains {"id": "BPF001", "action": "log"} if {
	input.event.kind == "runtime_integrity.bpf"
	input.event.command == "prog_load"
	input.process.program == ""
}

# METADATA
# title: An unnamed program loads BPF that interferes with others
# description: |
#   The program calls helpers that send signals, change what kernel functions return, or write to the memory of other
#   processes: the tools of a BPF rootkit.
# custom: {id: BPF002, severity: critical, action: override}
rules contains {"id": "BPF002", "action": "override", "errno": 1} if {
	input.event.kind == "runtime_integrity.bpf"
	input.event.command == "prog_load"
	count(input.event.helpers) > 0
	input.process.program == ""
}

# METADATA
# title: A named program loads BPF that interferes with others
# description: As BPF002, by a program of data.executables.
# custom: {id: BPF003, severity: medium, action: log}
rules contains {"id": "BPF003", "action": "log"} if {
	input.event.kind == "runtime_integrity.bpf"
	input.event.command == "prog_load"
	count(input.event.helpers) > 0
	input.process.program != ""
}

# METADATA
# title: A BPF program is loaded that could not be read
# description: The probe could not read the call's attributes or all instructions, so BPF002 cannot judge it.
# custom: {id: BPF004, severity: medium, action: log}
rules contains {"id": "BPF004", "action": "log"} if {
	input.event.kind == "runtime_integrity.bpf"
	input.event.command == "prog_load"
	input.event.helpers_known == false
}
