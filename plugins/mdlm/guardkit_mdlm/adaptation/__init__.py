"""New rows for a label of a trained model, learnt from few examples."""
