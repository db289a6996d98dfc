"""Settings for all tests."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run, and no failure because a shared machine was slow.
settings.register_profile("waferc", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("many", deadline=None, print_blob=True, max_examples=3000)
settings.load_profile("waferc")


@pytest.hookimpl
def pytest_sessionstart(session: pytest.Session) -> None:
    """A cache of the session's own, which its workers share: no result depends on an earlier run."""
    if not hasattr(session.config, "workerinput"):
        folder = tempfile.TemporaryDirectory(prefix="waferc-tests-")
        session.config.add_cleanup(folder.cleanup)
        os.environ["WAFERC_CACHE"] = folder.name


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a cache beside it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WAFERC_CACHE", str(tmp_path / "cache"))
    return folder
