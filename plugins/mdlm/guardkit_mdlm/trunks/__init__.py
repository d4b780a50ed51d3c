"""What turns embeddings into states."""
