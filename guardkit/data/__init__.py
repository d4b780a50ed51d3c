"""Labelled examples to learn from or to measure on, from the hub or from files."""
