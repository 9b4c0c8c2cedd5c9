package krie.cfi_test

import data.krie.cfi

act(kind, what) := ids if {
	ids := {rule.id | some rule in cfi.rules} with input as {"event": {"kind": kind, "act": what}}
}

test_acts_without_a_right_are_refused if {
	acts := [
		"file_capability",
		"setuid_root",
		"open_for_writing",
		"release_agent",
		"device_node",
		"module",
		"mount",
	]
	every what in acts {
		act("cfi.act", what) == {"CFI005"}
	}
}

test_an_act_that_is_none_is_not if act("cfi.act", "other") == set()

test_acts_of_others_are_not if act("other.act", "mount") == set()
