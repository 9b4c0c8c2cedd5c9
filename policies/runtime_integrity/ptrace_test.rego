package krie.runtime_integrity_test

import data.krie.runtime_integrity

attach := {
	"kind": "runtime_integrity.ptrace",
	"operation": "attach",
	"target_known": true,
	"target_tgid": 4242,
	"target_uid": 1000,
	"target": {"program": ""},
}

ptrace(changes, uid) := ids if {
	event := object.union(attach, changes)
	ids := {rule.id | some rule in runtime_integrity.rules} with input as {
		"event": object.union({"other_user": event.target_uid != uid}, event),
		"process": {"program": "", "uid": uid, "euid": uid},
	}
		with data.protected_programs as ["sshd"]
}

test_own_process if ptrace({}, 1000) == set()

test_process_of_another_user if ptrace({}, 1001) == {"PTRACE001"}

test_memory_of_another_user if ptrace({"operation": "vm_write"}, 1001) == {"PTRACE001"}

test_traceme if ptrace({"operation": "traceme"}, 1001) == set()

test_no_such_target if {
	ptrace({"target_known": false, "target_uid": 0, "target_tgid": 0, "other_user": false}, 1001) == set()
}

test_root_and_a_users_process if ptrace({}, 0) == {"PTRACE003"}

test_root_and_its_own_process if ptrace({"target_uid": 0}, 0) == set()

test_protected_program if ptrace({"target_uid": 0, "target": {"program": "sshd"}}, 0) == {"PTRACE004"}

test_other_named_program if ptrace({"target_uid": 0, "target": {"program": "apt"}}, 0) == set()

test_reading_the_first_process if {
	every operation in ["vm_read", "procfs_read"] {
		ptrace({"target_uid": 0, "target_tgid": 1, "operation": operation}, 0) == set()
	}
}

test_writing_to_the_first_process if {
	every operation in ["vm_write", "procfs", "access", "seize"] {
		ptrace({"target_uid": 0, "target_tgid": 1, "operation": operation}, 0) == {"PTRACE002"}
	}
}

test_reading_of_another_user if {
	ptrace({"operation": "vm_read"}, 1001) == {"PTRACE001"}
	ptrace({"operation": "procfs_read"}, 0) == {"PTRACE003"}
}

test_own_container if ptrace({"other_user": false, "target_uid": 100033}, 1000) == set()

test_first_process if ptrace({"target_uid": 0, "target_tgid": 1}, 0) == {"PTRACE002"}
