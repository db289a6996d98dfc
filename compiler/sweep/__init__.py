"""Design sweeps: models by wafers by options, each point from a real plan."""
