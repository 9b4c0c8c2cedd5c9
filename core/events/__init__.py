"""What an event is: its declaration, its layout in memory, and how bytes become one."""
