# METADATA
# title: Integrity of the running kernel
# description: |
#   Who weakens the kernel's settings, loads BPF programs, or takes control over other processes. See the plugin
#   runtime_integrity for what its probes see and do not see.
package krie.runtime_integrity

# METADATA
# title: A protected sysctl is weakened
# description: |
#   The number written lies outside the safe range of data.protected_sysctls, and farther outside than the one before.
#   Writing an unsafe value again is not reported: the kernel was as weak already.
# custom: {id: SYSCTL001, severity: high, action: override}
rules contains {"id": "SYSCTL001", "action": "override", "errno": 1} if {
	input.event.kind == "runtime_integrity.sysctl_write"
	input.event.new_parsed
	weakens(data.protected_sysctls[input.event.name], input.event.new_int)
}

# METADATA
# title: A write to a protected sysctl cannot be judged
# description: |
#   The value is no single number, is longer than what the probe keeps, or is not written at the file's start.
# custom: {id: SYSCTL002, severity: medium, action: log}
rules contains {"id": "SYSCTL002", "action": "log"} if {
	input.event.kind == "runtime_integrity.sysctl_write"
	data.protected_sysctls[input.event.name]
	unreadable
}

# METADATA
# title: A program that the kernel starts as root is replaced
# description: |
#   kernel/modprobe, a pipe in kernel/core_pattern and the like name a program that the kernel runs with all privileges;
#   a write to them is the classic end of an exploit that can write one kernel address.
# custom: {id: SYSCTL003, severity: high, action: log}
rules contains {"id": "SYSCTL003", "action": "log"} if {
	input.event.kind == "runtime_integrity.sysctl_write"
	input.event.name in data.helper_sysctls
	starts_program
	input.event.new != input.event.old
}

weakens(range, value) if {
	value < range.least
	not input.event.old_parsed
}

weakens(range, value) if {
	value < range.least
	input.event.old_parsed
	value < input.event.old_int
}

weakens(range, value) if {
	value > range.most
	not input.event.old_parsed
}

weakens(range, value) if {
	value > range.most
	input.event.old_parsed
	value > input.event.old_int
}

unreadable if not input.event.new_parsed

unreadable if input.event.file_pos > 0

starts_program if startswith(input.event.new, "/")

starts_program if startswith(input.event.new, "|")
