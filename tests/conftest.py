"""Settings for all tests."""

from hypothesis import settings

# The same examples in every run, and no failure because a shared machine was slow.
settings.register_profile("waferc", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("waferc")
