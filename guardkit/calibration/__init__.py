"""From a classifier's logits to calibrated log-odds."""
