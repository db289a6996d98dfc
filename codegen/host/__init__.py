"""The quick run: neighbours' tasks in one go, one copy of what many cores hold. Starts at `calls`."""
