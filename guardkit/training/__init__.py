"""From examples to a model folder."""
