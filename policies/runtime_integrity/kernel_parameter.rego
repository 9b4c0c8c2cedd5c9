package krie.runtime_integrity

# METADATA
# title: A switch that silences KRIe's probes was turned
# description: |
#   A variable of data.restored_parameters differs: kprobes are disarmed, or ftrace is off. No probe needs to see who
#   did it, since the variable itself was compared. It is put back by the kernel's own interface.
# custom:
#   id: KPARAM001
#   severity: critical
#   action: override
#   technique: T1562.001
#   seen: |
#     The switch turns back within a minute. Administrators who turn tracing off on purpose meet it: change
#     data.restored_parameters.
rules contains {"id": "KPARAM001", "action": "override"} if {
	input.event.kind == "runtime_integrity.kernel_parameter"
	input.event.state == "differs"
	is_restored
}

# METADATA
# title: A setting of the kernel is weaker than it was
# description: |
#   A variable behind a file of /proc/sys or /sys has an unexpected value. Whoever wrote it by that file is in the
#   journal as runtime_integrity.sysctl_write; where nobody is, it was a write to the kernel's memory.
# custom:
#   id: KPARAM002
#   severity: high
#   action: log
#   technique: T1562.001
#   seen: |
#     Nothing. Administrators who relax a setting cause the line, and so do packages that change kernel.core_pattern.
rules contains {"id": "KPARAM002", "action": "log"} if {
	input.event.kind == "runtime_integrity.kernel_parameter"
	input.event.state == "differs"
	input.event.interface != ""
	not is_restored
}

# METADATA
# title: A variable that nothing but the kernel sets was changed
# description: |
#   Hooks of security modules, the state of lockdown, and the like: no file lets them be set, so code in the kernel or a
#   write to its memory did it.
# custom:
#   id: KPARAM003
#   severity: critical
#   action: log
#   technique: T1014
#   seen: |
#     Nothing. ftrace turns itself off for good when it finds a bug of its own, which causes the line, too.
rules contains {"id": "KPARAM003", "action": "log"} if {
	input.event.kind == "runtime_integrity.kernel_parameter"
	input.event.state == "differs"
	input.event.interface == ""
	not is_restored
}

# METADATA
# title: A variable of the kernel was found changed between two scans
# description: |
#   A check in the kernel, at a random time, found a variable changed. Where it stays so, the next scan reports it once
#   more (KPARAM001 to KPARAM003). Where no scan does, it was put back meanwhile, as by an attacker who weakens a
#   setting for a moment only.
# custom:
#   id: KPARAM004
#   severity: high
#   action: log
#   technique: T1562.001
#   seen: |
#     Nothing. Administrators who relax a setting cause the line, and so do packages that change kernel.core_pattern.
rules contains {"id": "KPARAM004", "action": "log"} if {
	input.event.kind == "runtime_integrity.parameter_look"
	input.event.state == "differs"
}

# Not negated in its places: where data.restored_parameters is missing, none is restored.
is_restored if input.event.symbol in data.restored_parameters
