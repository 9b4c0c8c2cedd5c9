package krie.runtime_integrity_test

import data.krie.runtime_integrity

probe_register := {
	"kind": "runtime_integrity.probe_register",
	"mechanism": "kprobe",
	"operation": "register",
	"symbol": "do_exit",
	"module": "",
	"owner": "kernel",
}

probe(changes) := ids if {
	ids := {rule.id | some rule in runtime_integrity.rules} with input as {
		"event": object.union(probe_register, changes),
		"process": {"program": ""},
	}
		with data.known_modules as ["lttng_probe"]
		with data.lookup_functions as ["kallsyms_lookup_name"]
}

test_probe_of_the_kernels_own if probe({}) == set()

test_probe_of_a_module if probe({"owner": "nf_tables"}) == set()

test_probe_of_nobody if probe({"owner": "?"}) == {"PROBE001"}

test_probe_of_nobody_goes if probe({"owner": "?", "operation": "unregister"}) == set()

test_looked_for_by_a_module if probe({"symbol": "kallsyms_lookup_name", "owner": "x"}) == {"PROBE002"}

test_looked_for_without_a_handler if probe({"symbol": "kallsyms_lookup_name", "owner": ""}) == {"PROBE002"}

test_looked_for_by_perf if probe({"symbol": "kallsyms_lookup_name"}) == set()

test_looked_for_by_a_known_module if {
	probe({"symbol": "kallsyms_lookup_name", "owner": "lttng_probe"}) == set()
}

test_all_disarmed if probe({"mechanism": "all_kprobes", "operation": "disarm", "owner": ""}) == {"PROBE003"}

test_all_armed if probe({"mechanism": "all_kprobes", "operation": "arm", "owner": ""}) == set()

test_patched if {
	probe({"mechanism": "ftrace", "operation": "found", "module": "x", "owner": "x"}) == {"PROBE004"}
}

test_patched_by_a_known_module if {
	known := {"mechanism": "ftrace", "operation": "found", "module": "lttng_probe", "owner": "lttng_probe"}
	probe(known) == set()
}
