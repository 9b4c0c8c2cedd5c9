package krie.runtime_integrity

# METADATA
# title: Code that belongs to nobody registers a probe
# description: |
#   The handler lies neither in the kernel nor in a module that it lists: a module that hides itself, or code that was
#   written into memory.
# custom:
#   id: PROBE001
#   severity: critical
#   action: log
#   technique: T1014
#   seen: |
#     Nothing. A module that is gone before the event is looked at may cause it.
rules contains {"id": "PROBE001", "action": "log"} if {
	input.event.kind == "runtime_integrity.probe_register"
	input.event.operation == "register"
	input.event.owner == "?"
}

# METADATA
# title: A module looks for a function that it may not use
# description: |
#   A kprobe at one of data.lookup_functions tells a module their addresses, and by them those of all others: how
#   rootkits find what the kernel does not export.
# custom:
#   id: PROBE002
#   severity: high
#   action: log
#   technique: T1014
#   seen: |
#     Nothing. Some tracers and drivers that are built apart from the kernel do the same; data.known_modules names them.
rules contains {"id": "PROBE002", "action": "log"} if {
	input.event.kind == "runtime_integrity.probe_register"
	input.event.operation == "register"
	input.event.symbol in data.lookup_functions
	by_unknown_code
}

# METADATA
# title: All kprobes are disarmed
# description: |
#   Whatever watches the kernel by kprobes is blind from then on, and so are kprobes of KRIe's.
# custom:
#   id: PROBE003
#   severity: high
#   action: log
#   technique: T1562.001
#   seen: |
#     Nothing. Somebody who writes 0 to debugfs' kprobes/enabled causes it.
rules contains {"id": "PROBE003", "action": "log"} if {
	input.event.kind == "runtime_integrity.probe_register"
	input.event.mechanism == "all_kprobes"
	input.event.operation == "disarm"
}

# METADATA
# title: A module has patched a kernel function
# description: |
#   It handles the function's calls by ftrace, and is not in data.known_modules. Rootkits hide files and processes so.
# custom:
#   id: PROBE004
#   severity: high
#   action: log
#   technique: T1014
#   seen: |
#     Nothing. Tracers that are modules cause it; data.known_modules names them.
rules contains {"id": "PROBE004", "action": "log"} if {
	input.event.kind == "runtime_integrity.probe_register"
	input.event.mechanism == "ftrace"
	not handled_by_a_known_module
}

# A handler is not needed to learn an address: a kprobe without one belongs to whoever registers it.
by_unknown_code if {
	input.event.owner != "kernel"
	not of_a_known_module
}

# Not negated in their places: where data.known_modules is missing, no module is known.
handled_by_a_known_module if input.event.module in data.known_modules

of_a_known_module if input.event.owner in data.known_modules
