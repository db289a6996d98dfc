"""Models as exporters write them: folders, what is asked of them by default, an encoder with its decoder."""
