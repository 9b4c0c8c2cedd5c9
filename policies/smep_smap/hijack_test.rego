package krie.smep_smap_test

import data.krie.smep_smap

check(failed, traced) := ids if {
	ids := {rule.id | some rule in smep_smap.rules} with input as {"event": {
		"kind": "smep_smap.register_check",
		"failed": failed,
		"traced": traced,
		"function": "commit_creds",
		"place": "entry",
	}}
}

test_stack_in_user_memory if check(["stack_user"], false) == {"SMEP001"}

test_foreign_stack if check(["stack_kernel"], false) == {"SMEP002"}

test_no_call if {
	every failed in ["return_user", "return_text", "return_call"] {
		check([failed], false) == {"SMEP003"}
	}
}

test_init_cred if check(["init_cred"], false) == {"SMEP004"}

test_a_chain_fails_two_checks if check(["return_call", "stack_user"], false) == {"SMEP001", "SMEP003"}

test_a_tracers_return_address_proves_nothing if check(["return_call"], true) == set()

test_a_tracer_moves_no_stack if check(["stack_user"], true) == {"SMEP001"}

test_bits_that_are_not_known if check(["unknown_bits"], false) == set()

trap(state) := ids if {
	ids := {rule.id | some rule in smep_smap.rules} with input as {"event": {
		"kind": "smep_smap.trap",
		"state": state,
	}}
}

test_trap_is_gone if {
	trap("vanished") == {"SMEP005"}
	trap("disarmed") == {"SMEP005"}
}

test_list_is_unreadable if trap("unreadable") == set()
