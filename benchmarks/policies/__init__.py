"""Policies and their certificates."""
