"""Large models as shapes: sizes by name, and their graphs without weights."""
