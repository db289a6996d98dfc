"""Servers of GPUs beside the wafer: what a call of the same graph takes there."""
