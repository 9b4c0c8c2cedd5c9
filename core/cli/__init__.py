"""The command line: what each command reads, prints and answers."""
