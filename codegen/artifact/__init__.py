"""The `.wafer` file."""
