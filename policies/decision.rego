# METADATA
# title: The merge of all rules
# description: |
#   What the agent does in Python with the rules that its packages answered, written once more in Rego: the reference
#   (a test holds both equal) and the entry point for an OPA server. The strongest action wins. Scope and time come from
#   the rules with that action: the widest scope, and the longest time among the rules of that scope; the error is that
#   of the first of them by id.
package krie.decision

actions := ["allow", "log", "override", "kill"]

scopes := ["event", "process", "host"]

eperm := 1

process_ttl_s := 600

# METADATA
# title: The decision for the input event
# entrypoint: true
result := {
	"action": actions[action],
	"scope": scopes[scope],
	"errno": errno,
	"ttl_s": ttl_s,
	"rules": [{"id": rule[0], "action": actions[rule[1]]} | some rule in sort(fired)],
}

# As arrays, which sort by id, action, scope, error and time in this order.
fired contains [rule.id, action_number(rule), scope_number(rule), error_of(rule), ttl_of(rule)] if {
	some name

	# `some ... in data.krie` would evaluate this package too
	# regal ignore:mixed-iteration
	some rule in data.krie[name].rules
}

default action := 0

action := max([rule[1] | some rule in fired]) if count(fired) > 0

strongest contains rule if {
	some rule in fired
	rule[1] == action
}

default scope := 0

scope := max([rule[2] | some rule in strongest]) if count(strongest) > 0

default errno := 0

errno := sort(strongest)[0][3] if count(strongest) > 0

default ttl_s := 0

ttl_s := max([rule[4] | some rule in strongest; rule[2] == scope]) if count(strongest) > 0

action_number(rule) := number if {
	some number, name in actions
	name == rule.action
}

scope_number(rule) := number if {
	some number, name in scopes
	name == object.get(rule, "scope", "event")
}

error_of(rule) := object.get(rule, "errno", eperm) if rule.action == "override"

error_of(rule) := 0 if rule.action != "override"

ttl_of(rule) := 0 if scope_number(rule) == 0

ttl_of(rule) := process_ttl_s if {
	scope_number(rule) == 1
	object.get(rule, "ttl_s", 0) == 0
}

ttl_of(rule) := rule.ttl_s if {
	scope_number(rule) > 0
	object.get(rule, "ttl_s", 0) > 0
}
