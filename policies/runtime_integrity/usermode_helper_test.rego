package krie.runtime_integrity_test

import data.krie.runtime_integrity

usermode_helper := {
	"kind": "runtime_integrity.usermode_helper",
	"path": "/sbin/modprobe",
	"path_truncated": false,
	"file_uid": 0,
	"others_write": false,
	"file_deleted": false,
}

started(changes) := ids if {
	ids := {rule.id | some rule in runtime_integrity.rules} with input as {
		"event": object.union(usermode_helper, changes),
		"process": {"program": "", "container": false},
	}
		with data.usermode_helpers as ["/sbin/modprobe", "/usr/lib/systemd/systemd-coredump"]
}

test_modprobe_is_started if started({}) == set()

test_systemd_takes_a_core_dump if started({"path": "/usr/lib/systemd/systemd-coredump"}) == set()

test_another_path_is_none if started({"path": "/tmp/x"}) == {"HELPER001"}

test_a_path_that_goes_on_is_none if started({"path": "/sbin/modprobe/../../tmp/x"}) == {"HELPER001"}

test_a_helper_of_a_user if started({"file_uid": 1000}) == {"HELPER002"}

test_a_helper_that_anybody_writes if started({"others_write": true}) == {"HELPER002"}

test_a_helper_without_a_name if started({"path": "/memfd", "file_deleted": true}) == {"HELPER001", "HELPER002"}

test_nothing_is_a_helper_where_the_list_is_missing if {
	ids := {rule.id | some rule in runtime_integrity.rules} with input.event as usermode_helper
		with data.usermode_helpers as {}
	ids == {"HELPER001"}
}
