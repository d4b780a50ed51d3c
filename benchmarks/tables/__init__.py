"""Tables and pictures of the results pages, from the stored results."""
