package krie.runtime_integrity

# METADATA
# title: The kernel starts a program that is none of its helpers
# description: |
#   Its path is none of data.usermode_helpers. Whoever can write one word of the kernel's memory, or its settings, has
#   the kernel start a program of theirs as root: by modprobe_path, core_pattern, release_agent and the like.
# custom:
#   id: HELPER001
#   severity: high
#   action: override
#   technique: T1068
#   seen: |
#     The program is not started, and the kernel goes on without it: no core dump is kept, no module is loaded. Who has
#     another handler of core dumps, or a file system's helper, adds its path to data.usermode_helpers.
rules contains {"id": "HELPER001", "action": "override", "errno": 1} if {
	input.event.kind == "runtime_integrity.usermode_helper"
	not is_usermode_helper
}

# METADATA
# title: The kernel starts a program that others than root control
# description: |
#   Somebody else owns the file, may write to it, or it has no name (a memfd, or a file that was deleted).
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

# Not negated in its place: whatever is missing, the rule above is to fire.
is_usermode_helper if input.event.path in data.usermode_helpers
