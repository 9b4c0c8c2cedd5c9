package krie.runtime_integrity

# METADATA
# title: An ordinary user takes control over another user's process
# description: |
#   The kernel forbids this; where it happens, a capability, a namespace or an exploit made it possible. The attempt is
#   seen before the kernel answers it.
# custom: {id: PTRACE001, severity: high, action: override}
rules contains {"id": "PTRACE001", "action": "override", "errno": 1} if {
	input.event.kind == "runtime_integrity.ptrace"
	takes_control
	input.process.euid != 0
	input.event.target_uid != input.process.uid
}

# METADATA
# title: A protected process is taken control of
# description: Its executable is named in data.protected_programs, or it is the first process.
# custom: {id: PTRACE002, severity: high, action: override}
rules contains {"id": "PTRACE002", "action": "override", "errno": 1} if {
	input.event.kind == "runtime_integrity.ptrace"
	takes_control
	protected_target
}

# METADATA
# title: Root takes control over another user's process
# description: Debuggers and tracers of administrators do this; so does whoever steals credentials from memory.
# custom: {id: PTRACE003, severity: low, action: log}
rules contains {"id": "PTRACE003", "action": "log"} if {
	input.event.kind == "runtime_integrity.ptrace"
	takes_control
	input.process.euid == 0
	input.event.target_uid != input.process.uid
}

takes_control if {
	input.event.target_known
	input.event.operation != "traceme"
}

protected_target if input.event.target_tgid == 1

protected_target if input.event.target.program in data.protected_programs
