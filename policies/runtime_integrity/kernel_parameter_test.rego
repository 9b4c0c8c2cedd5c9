package krie.runtime_integrity_test

import data.krie.runtime_integrity

differs := {
	"kind": "runtime_integrity.kernel_parameter",
	"state": "differs",
	"symbol": "kptr_restrict",
	"interface": "/proc/sys/kernel/kptr_restrict",
}

parameter(changes) := ids if {
	ids := {rule.id | some rule in runtime_integrity.rules} with input as {
		"event": object.union(differs, changes),
		"process": {"program": ""},
	}
		with data.restored_parameters as ["ftrace_enabled"]
}

test_weaker_setting if parameter({}) == {"KPARAM002"}

test_setting_that_agrees_again if parameter({"state": "agrees"}) == set()

test_switch_that_silences if parameter({"symbol": "ftrace_enabled"}) == {"KPARAM001"}

test_switch_that_is_not_watched if parameter({"symbol": "ftrace_enabled", "state": "unwatched"}) == set()

test_variable_without_interface if {
	parameter({"symbol": "security_hook_heads", "interface": ""}) == {"KPARAM003"}
}

test_variable_that_is_not_watched if parameter({"interface": "", "state": "unwatched"}) == set()

look := {"kind": "runtime_integrity.parameter_look", "state": "differs", "symbol": "kptr_restrict"}

test_look_that_finds_a_change if parameter(look) == {"KPARAM004"}

test_look_that_finds_it_as_it_was if parameter(object.union(look, {"state": "agrees"})) == set()
