"""Rego that ships with KRIe: one folder a plugin, tests beside the rules, and the reference merge, `decision.rego`."""
