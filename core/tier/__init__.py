"""Which rules the kernel decides, and the tables by which it does."""
