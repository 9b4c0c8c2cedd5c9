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
# custom:
#   id: SYSCTL001
#   severity: high
#   action: override
#   technique: T1562.001
#   seen: |
#     The write fails with EPERM and the sysctl keeps its value. Who relaxes such a setting on purpose meets it: change
#     data.protected_sysctls.
rules contains {"id": "SYSCTL001", "action": "override", "errno": 1} if {
	input.event.kind == "runtime_integrity.sysctl_write"
	input.event.new_parsed
	some name, range in data.protected_sysctls
	input.event.name == name
	weakens(range)
}

# METADATA
# title: A write to a protected sysctl cannot be judged
# description: |
#   The value is no single number, is longer than what the probe keeps, or is not written at the file's start.
# custom:
#   id: SYSCTL002
#   severity: medium
#   action: log
#   technique: T1562.001
#   seen: |
#     Nothing. A value with a typing error causes it.
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
# custom:
#   id: SYSCTL003
#   severity: high
#   action: log
#   technique: T1574
#   seen: |
#     Nothing. Installing a handler for core dumps causes it.
rules contains {"id": "SYSCTL003", "action": "log"} if {
	input.event.kind == "runtime_integrity.sysctl_write"
	input.event.name in data.helper_sysctls
	starts_program
	input.event.new != input.event.old
}

# `other`: the value before is no number, so this may well be farther outside.
weakens(range) if {
	input.event.new_int < range.least
	input.event.change in {"lower", "other"}
}

weakens(range) if {
	input.event.new_int > range.most
	input.event.change in {"higher", "other"}
}

unreadable if not input.event.new_parsed

unreadable if input.event.file_pos > 0

starts_program if startswith(input.event.new, "/")

starts_program if startswith(input.event.new, "|")
