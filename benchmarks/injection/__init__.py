"""Detectors of prompt injection."""
