"""A plan: layouts, moves, steps, buffers."""
