package krie.runtime_integrity

# METADATA
# title: A kernel module hides
# description: |
#   It is in one of the places where the kernel keeps its modules, and not in all of them, in several looks in a row. An
#   event without a name and an address: one of those places lacks most modules, and somebody broke that.
# custom:
#   id: HIDDEN001
#   severity: critical
#   action: log
#   technique: T1014
#   seen: |
#     Nothing: nothing can be refused any more. Take the machine off the network and start it from other media.
rules contains {"id": "HIDDEN001", "action": "log"} if {
	input.event.kind == "runtime_integrity.hidden_module"
	count(input.event.missing) > 0
}
