package krie.runtime_integrity

# METADATA
# title: The kernel starts a program that is not a known helper
# description: |
#   Its path is not in data.usermode_helpers. Whoever can write one word of the kernel's memory, or its settings, has
#   the kernel start a program of theirs as root: by modprobe_path, core_pattern, release_agent and the like.
# custom:
#   id: HELPER001
#   severity: high
#   action: override
#   technique: T1068
#   seen: |
#     The program is not started, and the kernel goes on without it: no core dump is kept, no module is loaded. Who has
#     another handler of core dumps, or a file system's helper, adds its path to data.usermode_helpers: of programs that
#     do one thing, whatever their arguments say, in folders that only root writes to.
rules contains {"id": "HELPER001", "action": "override", "errno": 1} if {
	input.event.kind == "runtime_integrity.usermode_helper"
	not is_usermode_helper
}

# METADATA
# title: The kernel starts a program that users other than root can change
# description: |
#   Somebody else owns the file or may write to it, or it has no name (a memfd, or a file that was deleted). The same
#   goes for the file's interpreter, where it is a script or binfmt_misc has one for it.
# custom:
#   id: HELPER002
#   severity: critical
#   action: override
#   technique: T1068
#   seen: |
#     The program is not started, and the kernel goes on without it. Nothing that a distribution installs causes it.
rules contains {"id": "HELPER002", "action": "override", "errno": 1} if {
	input.event.kind == "runtime_integrity.usermode_helper"
	others_control_file
}

# METADATA
# title: The kernel gives a helper what it never gives it
# description: |
#   One of data.module_loaders without `-q --` before the module: by a setting like core_pattern, modprobe runs what
#   somebody's file says. Or variables beside HOME, TERM and PATH (LD_PRELOAD), where the program is not in
#   data.usermode_helpers_with_variables.
# custom:
#   id: HELPER003
#   severity: critical
#   action: override
#   technique: T1068
#   seen: |
#     The program is not started, and the kernel goes on without it. The kernel's own calls cause it for none of the
#     programs that are shipped in data.usermode_helpers; one of yours that gets variables is added to the other list.
#     Where ftrace is off, nobody sees arguments or variables: what the kernel starts is refused then.
rules contains {"id": "HELPER003", "action": "override", "errno": 1} if {
	input.event.kind == "runtime_integrity.usermode_helper"
	gets_something_else
}

gets_something_else if {
	input.event.path in data.module_loaders
	not input.event.asks_for_module
}

gets_something_else if {
	input.event.other_variables
	not may_have_variables
}

# Not negated in their places: whatever is missing, the rules above are to fire.
is_usermode_helper if input.event.path in data.usermode_helpers

may_have_variables if input.event.path in data.usermode_helpers_with_variables
