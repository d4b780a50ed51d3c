"""A policy's thresholds, weights and stages, fitted to labelled text."""
