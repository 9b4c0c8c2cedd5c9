package krie.runtime_integrity_test

import data.krie.runtime_integrity

module_load := {
	"kind": "runtime_integrity.module_load",
	"step": "file",
	"file_uid": 0,
	"others_write": false,
	"file_deleted": false,
	"flags": [],
	"taints": [],
	"name": "",
}

module(changes, process) := ids if {
	ids := {rule.id | some rule in runtime_integrity.rules} with input as {
		"event": object.union(module_load, changes),
		"process": object.union({"program": "kmod", "container": false}, process),
	}
		with data.known_modules as ["nvidia"]
		with data.guarded_modules as ["lkrg"]
}

unload(changes, program) := ids if {
	event := {"kind": "runtime_integrity.module_unload", "step": "asked", "name": "dummy"}
	ids := {rule.id | some rule in runtime_integrity.rules} with input as {
		"event": object.union(event, changes),
		"process": {"program": program, "container": false},
	}
		with data.guarded_modules as ["lkrg"]
}

test_module_by_kmod if module({}, {}) == set()

test_module_by_another if module({}, {"program": ""}) == {"MODULE003"}

test_module_from_memory_by_kmod if module({"step": "memory"}, {}) == set()

test_module_from_memory if module({"step": "memory"}, {"program": ""}) == {"MODULE001"}

test_module_of_a_user if module({"file_uid": 1000}, {}) == {"MODULE002"}

test_module_that_anybody_writes if module({"others_write": true}, {}) == {"MODULE002"}

test_module_without_a_name if module({"file_deleted": true}, {}) == {"MODULE002"}

test_module_of_a_container if module({}, {"container": true}) == {"MODULE004"}

test_module_linked_in_a_container if module({"step": "linked"}, {"container": true}) == set()

test_module_by_force if module({"flags": ["ignore_vermagic"]}, {}) == {"MODULE005"}

test_module_forced if module({"step": "linked", "taints": ["forced"]}, {}) == {"MODULE005"}

test_compressed_module if module({"flags": ["compressed_file"]}, {}) == set()

test_unsigned_module if {
	module({"step": "linked", "taints": ["out_of_tree", "unsigned"], "name": "x"}, {}) == {"MODULE006"}
}

test_known_unsigned_module if module({"step": "linked", "taints": ["unsigned"], "name": "nvidia"}, {}) == set()

test_unload_by_kmod if unload({}, "kmod") == set()

test_unload_by_another if unload({}, "") == {"MODULE007"}

test_freed if unload({"step": "freed", "name": "lkrg"}, "") == set()

test_unload_of_a_guard if unload({"name": "lkrg"}, "kmod") == {"MODULE008"}
