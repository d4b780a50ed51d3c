"""Weights that other code trained: public MDLM weights, old checkpoints, one network a label."""
