"""What holds for every test: hypothesis draws the same examples each time and sets no time limit per example."""

from browsing import chromium, opened  # noqa: F401 - fixtures
from hypothesis import HealthCheck, settings

settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    max_examples=30,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("repeatable")
