# METADATA
# title: Integrity of the running kernel
# description: |
#   Who weakens the kernel's settings, loads BPF programs, or takes control over other processes. See the plugin
#   runtime_integrity for what its probes see and do not see.
package krie.runtime_integrity

# METADATA
# title: A protected sysctl is weakened
# description: |
#   The number that the kernel would take lies outside the safe range of data.protected_sysctls, and farther outside
#   than the current value. Writing an unsafe value again is not reported: the kernel was as weak already.
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
	some name, range in data.protected_sysctls
	input.event.name == name
	weakens(range)
}

# METADATA
# title: A write to a protected sysctl cannot be judged
# description: |
#   The value does not start with a number, or that lies beyond what the probe looks at. It is refused, since it might
#   weaken the setting.
# custom:
#   id: SYSCTL002
#   severity: medium
#   action: override
#   technique: T1562.001
#   seen: |
#     The write fails with EPERM and the sysctl keeps its value. A value with a typing error causes it, which the kernel
#     would refuse as well.
rules contains {"id": "SYSCTL002", "action": "override", "errno": 1} if {
	input.event.kind == "runtime_integrity.sysctl_write"
	input.event.change == "unread"
	some name, _ in data.protected_sysctls
	input.event.name == name
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

# `other`: the value before is not a number, so this may well be farther outside. `none`: the kernel ignores the write.
weakens(range) if {
	input.event.new_int < range.least
	input.event.change in {"lower", "other"}
}

weakens(range) if {
	input.event.new_int > range.most
	input.event.change in {"higher", "other"}
}

# The others hold a path, which may be a relative one, or be written in pieces.
starts_program if {
	input.event.name != "kernel/core_pattern"
	trim_space(input.event.new) != ""
}

starts_program if startswith(input.event.new, "|")

starts_program if {
	input.event.file_pos > 0
	startswith(input.event.old, "|")
}
