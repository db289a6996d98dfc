"""Text by language models, token by token."""
