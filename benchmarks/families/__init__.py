"""Families of attacks that a model has not seen, or seen little of."""
