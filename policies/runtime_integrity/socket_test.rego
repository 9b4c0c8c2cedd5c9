package krie.runtime_integrity_test

import data.krie.runtime_integrity

filter(changes, program) := ids if {
	event := {"kind": "runtime_integrity.socket_filter", "operation": "attach_filter", "family": "packet"}
	ids := {rule.id | some rule in runtime_integrity.rules} with input as {
		"event": object.union(event, changes),
		"process": {"program": program},
	}
}

test_packets if filter({}, "") == {"SOCKET001"}

test_packets_by_bpf if filter({"operation": "attach_bpf"}, "") == {"SOCKET001"}

test_packets_by_a_named_program if filter({}, "tcpdump") == set()

test_a_socket_of_its_own if filter({"family": "inet"}, "") == set()

test_detached if filter({"operation": "detach_filter"}, "") == set()
