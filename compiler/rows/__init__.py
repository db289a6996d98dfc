"""Rows that NonZero takes, of which only a run knows which: all that there may be, put in place or not."""
