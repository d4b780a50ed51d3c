"""Training and measuring on a machine with a GPU for some minutes."""
