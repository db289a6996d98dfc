"""The guarded run: every core by itself, its moves and its checks as tables. Starts at `tables`."""
