"""What a text says: its canonical form, its other readings, the windows of a long one."""
