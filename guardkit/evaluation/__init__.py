"""A model or a policy measured on labelled text."""
