"""What OPA's checker refuses, told from the syntax trees alone: no engine runs, and nothing is read."""
