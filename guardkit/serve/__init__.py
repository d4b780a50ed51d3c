"""HTTP: a policy in front of applications, its page, metrics and audit log."""
