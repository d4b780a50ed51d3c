"""From lines of a file to lines of decisions, in one process or in many."""
