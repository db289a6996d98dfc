"""Choosing how one operation is cut."""
