package krie.runtime_integrity_test

import data.krie.runtime_integrity

usermode_helper := {
	"kind": "runtime_integrity.usermode_helper",
	"path": "/sbin/modprobe",
	"argument_1": "-q",
	"argument_2": "--",
	"argument_3": "net-pf-19",
	"path_truncated": false,
	"file_uid": 0,
	"others_write": false,
	"file_deleted": false,
	"asks_for_module": true,
	"other_variables": false,
	"interpreter": false,
}

started(changes) := ids if {
	ids := {rule.id | some rule in runtime_integrity.rules} with input as {
		"event": object.union(usermode_helper, changes),
		"process": {"program": "", "container": false},
	}
		with data.usermode_helpers as ["/sbin/modprobe", "/sbin/nfsdcltrack", "/usr/lib/systemd/systemd-coredump"]
		with data.module_loaders as ["/sbin/modprobe"]
		with data.usermode_helpers_with_variables as ["/sbin/nfsdcltrack"]
}

test_modprobe_is_started if started({}) == set()

test_systemd_takes_a_core_dump if {
	started({"path": "/usr/lib/systemd/systemd-coredump", "asks_for_module": false}) == set()
}

test_modprobe_with_options_of_its_own if started({"asks_for_module": false}) == {"HELPER003"}

test_a_helper_with_a_variable_more if started({"other_variables": true}) == {"HELPER003"}

test_a_helper_that_gets_variables if {
	started({"path": "/sbin/nfsdcltrack", "asks_for_module": false, "other_variables": true}) == set()
}

test_another_path_is_none if started({"path": "/tmp/x"}) == {"HELPER001"}

test_a_path_that_goes_on_is_none if started({"path": "/sbin/modprobe/../../tmp/x"}) == {"HELPER001"}

test_a_helper_of_a_user if started({"file_uid": 1000}) == {"HELPER002"}

test_a_helper_that_anybody_writes if started({"others_write": true}) == {"HELPER002"}

test_a_helper_without_a_name if started({"path": "/memfd", "file_deleted": true}) == {"HELPER001", "HELPER002"}

test_nothing_is_a_helper_where_the_list_is_missing if {
	ids := {rule.id | some rule in runtime_integrity.rules} with input.event as usermode_helper
		with data.usermode_helpers as {}
		with data.module_loaders as {}
	ids == {"HELPER001"}
}
