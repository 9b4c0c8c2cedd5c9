package krie.syscall_table_test

import data.krie.syscall_table

usual := {
	"kind": "syscall_table.hook",
	"where": "table",
	"target": "module",
	"trigger": "timer",
	"restored": false,
	"own_module": false,
	"explained": "",
}

fired(event) := ids if {
	ids := {rule.id | some rule in syscall_table.rules} with input as {"event": object.union(usual, event)}
}

killing(event) if {
	some rule in syscall_table.rules with input as {"event": object.union(usual, event)}
	rule.action == "kill"
}

test_out_of_the_kernel if {
	every where in ["table", "dispatch"] {
		every target in ["module", "other"] {
			fired({"where": where, "target": target}) == {"SYSCALL001"}
		}
	}
}

test_whoever_is_caught_in_the_act if {
	every where in ["table", "dispatch"] {
		fired({"where": where, "own_module": true}) == {"SYSCALL001", "SYSCALL002"}
		killing({"where": where, "own_module": true})
	}
}

test_nobody_is_killed_for_what_leads_elsewhere if {
	every trigger in ["module_init", "module_load", "module_free", "text_poke", "alias", "set_memory", "timer", "start"] {
		fired({"trigger": trigger}) == {"SYSCALL001"}
		not killing({"trigger": trigger})
	}
}

test_nobody_is_killed_for_a_pointer if not killing({"own_module": true, "where": "pointer"})

test_nobody_is_killed_for_putting_back if not killing({"own_module": true, "restored": true})

test_code if {
	every where in ["entry", "idt", "handler", "register"] {
		fired({"where": where, "target": "none"}) == {"SYSCALL003"}
	}
}

test_an_instruction_that_leads_nowhere if fired({"where": "dispatch", "target": "none"}) == {"SYSCALL003"}

test_code_that_the_kernel_lists if {
	every where in ["entry", "handler", "dispatch"] {
		fired({"where": where, "target": "none", "explained": "kprobe"}) == set()
	}
}

test_another_function if fired({"target": "kernel"}) == {"SYSCALL004"}

test_an_empty_slot if fired({"target": "none"}) == {"SYSCALL004"}

test_a_pointer if fired({"where": "pointer"}) == {"SYSCALL004"}

test_restored if {
	every where in ["table", "dispatch", "handler", "entry", "idt", "pointer", "register"] {
		fired({"where": where, "restored": true}) == {"SYSCALL007"}
	}
}

test_wrapped if {
	fired({"kind": "syscall_table.wrapped"}) == {"SYSCALL006"}
	fired({"kind": "syscall_table.wrapped", "target": "kernel"}) == set()
}

test_all_code if {
	every section in ["text", "rodata", "module", "bpf"] {
		fired({"kind": "syscall_table.code", "section": section}) == {"SYSCALL005"}
	}
}

test_code_that_is_restored if {
	fired({"kind": "syscall_table.code", "restored": true}) == {"SYSCALL007"}
	fired({"kind": "syscall_table.activity"}) == set()
}

test_a_function_in_a_list if {
	fired({"kind": "syscall_table.code", "section": "list"}) == {"SYSCALL008"}
	fired({"kind": "syscall_table.code", "section": "list", "restored": true}) == {"SYSCALL007"}
}
