# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Fixtures every test may use: a simulated cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import Lab

# Times are measured in PVE's seconds; here one lasts ten milliseconds.
TIME_SCALE = 0.01


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "lab(guests=, nodes=, time_scale=, ...): options of the lab fixture's Lab")


@pytest.fixture(scope="session", autouse=True)
def no_cache_at_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept for the next run is not kept in the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A cluster of this test's own: two nodes, the template, no guests."""
    marker = request.node.get_closest_marker("lab")
    with Lab(**{"time_scale": TIME_SCALE, **(marker.kwargs if marker else {})}) as running:
        yield running


@pytest.fixture(scope="session")
def lab_server() -> Iterator[Lab]:
    """One cluster for all tests of a worker that keep out of each other's way, or only read."""
    with Lab(time_scale=TIME_SCALE) as running:
        yield running
