package krie.cfi_test

import data.krie.cfi

call(function, owner, certain, gain) := ids if {
	ids := {rule.id | some rule in cfi.rules} with input as {"event": {
		"kind": "cfi.caller",
		"lock": "caller",
		"function": function,
		"owner": owner,
		"certain": certain,
		"gain": gain,
	}}
}

test_credentials_from_nowhere if {
	every function in ["commit_creds", "prepare_kernel_cred"] {
		every owner in ["kernel", "other"] {
			call(function, owner, true, []) == {"CFI001"}
		}
	}
}

test_callers_by_pointer_may_be_legal if call("commit_creds", "kernel", false, ["euid0"]) == {"CFI004"}

test_a_module_gives_rights if {
	every gain in ["euid0", "caps", "userns", "uid"] {
		call("commit_creds", "module", true, [gain]) == {"CFI002", "CFI004"}
	}
}

test_a_live_patch_may_be_a_caller if call("commit_creds", "module", false, ["euid0"]) == {"CFI004"}

test_a_module_gives_nothing if call("commit_creds", "module", true, []) == {"CFI004"}

test_a_module_makes_credentials if made("") == set()

test_a_module_makes_credentials_that_are_not_in_its_file if {
	every file in ["read", "none"] {
		made(file) == {"CFI007"}
	}
}

made(file) := ids if {
	ids := {rule.id | some rule in cfi.rules} with input as {"event": {
		"kind": "cfi.caller",
		"lock": "caller",
		"function": "prepare_kernel_cred",
		"owner": "module",
		"certain": true,
		"gain": [],
		"module_file": file,
	}}
}

test_other_functions_are_told if {
	every owner in ["kernel", "module", "other"] {
		call("set_memory_rw", owner, true, []) == {"CFI004"}
	}
}

test_configured_functions_are_told if call("other", "kernel", true, []) == {"CFI004"}

test_a_gain_in_a_foreign_system_call if gain("path") == {"CFI003"}

test_a_gain_without_a_right if gain("right") == {"CFI003"}

gain(lock) := ids if {
	ids := {rule.id | some rule in cfi.rules} with input as {"event": {
		"kind": "cfi.caller",
		"lock": lock,
		"function": "commit_creds",
		"owner": "kernel",
		"certain": true,
		"gain": ["caps", "userns"],
	}}
}

lock(differing) := ids if {
	ids := {rule.id | some rule in cfi.rules} with input as {"event": {
		"kind": "cfi.lock",
		"differing": differing,
	}}
}

test_the_code_differs if lock(1) == {"CFI006"}

test_the_code_is_as_filed if lock(0) == set()
