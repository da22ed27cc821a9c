"""Real Ray clusters for the integration tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cluster import Cluster
from ray_workflow_exporter.sources.running import RayLink


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Ray with a dashboard, shared by all tests that do it no damage."""
    with Cluster(num_cpus=4, dashboard=True) as cluster:
        yield cluster


@pytest.fixture
def new_cluster() -> Iterator[Callable[..., Cluster]]:
    """Start a Ray of one's own, to be damaged; takes the arguments of Cluster."""
    clusters: list[Cluster] = []

    def start(**arguments: object) -> Cluster:
        clusters.append(Cluster(**arguments))
        clusters[-1].start()
        return clusters[-1]

    yield start
    for cluster in clusters:
        cluster.stop()


@pytest.fixture
def link_to() -> Iterator[Callable[[str], RayLink]]:
    """Make a link to an address, closed after the test."""
    links: list[RayLink] = []

    def make(address: str) -> RayLink:
        links.append(RayLink(address))
        return links[-1]

    yield make
    for link in links:
        link.close()
