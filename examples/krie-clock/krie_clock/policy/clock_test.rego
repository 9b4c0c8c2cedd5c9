package krie.clock_test

import data.krie.clock

fired(what, program) := ids if {
	ids := {rule.id | some rule in clock.rules} with input as {
		"event": {"kind": "clock.settime", "what": what},
		"process": {"program": program},
	}
}

test_unnamed_program if fired("time", "") == {"CLOCK001"}

test_unnamed_program_sets_both if fired("both", "") == {"CLOCK001"}

test_named_program if fired("time", "chronyd") == set()

test_zone if fired("zone", "") == set()
