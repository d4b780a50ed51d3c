"""What tells the labels of labelled text, and should not."""
