"""From a YAML file to a checked policy, and from texts to decisions."""
