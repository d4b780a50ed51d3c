"""How fast texts are classified, and in how much memory."""
