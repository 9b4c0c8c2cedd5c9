"""What reviewers ask of a policy: lint, tests, difference, replay; and the pages that show it."""
