"""What all tests share: how Hypothesis runs."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# No test asserts a wall-clock time, so no example has a deadline. In CI the examples are the
# same in every run, and a failure can be repeated anywhere.
settings.register_profile(
    "mdaflow", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("ci", settings.get_profile("mdaflow"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "mdaflow")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update`: the golden cases accept what they get."""
    parser.addoption("--update", action="store_true", help="accept the results of tests/cases")
