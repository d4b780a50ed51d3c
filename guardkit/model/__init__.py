"""A trained model, on disk and loaded."""
