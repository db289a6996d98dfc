"""The wafer."""
