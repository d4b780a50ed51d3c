"""From examples to weights: the loop, the joint loss, batches, optimisers and starts."""
