"""A model on wafers and on islands of GPUs, side by side."""
