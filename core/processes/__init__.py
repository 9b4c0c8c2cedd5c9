"""What is known of each process, also when it is gone."""
