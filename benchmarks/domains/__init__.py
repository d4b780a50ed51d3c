"""Other domains than prompt injection."""
