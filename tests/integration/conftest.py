"""Real Ray clusters and a real browser for the integration tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, sync_playwright

from ray_workflow_exporter.sources.manager.link import RayLink
from support.cluster import STATE_API, Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Ray with a dashboard, shared by all tests that do it no damage and end what they start."""
    with Cluster(num_cpus=6, dashboard=True, modules=STATE_API) as cluster:
        yield cluster


@pytest.fixture
def new_cluster() -> Iterator[Callable[..., Cluster]]:
    """Start a Ray of one's own, to be damaged; takes the arguments of Cluster."""
    clusters: list[Cluster] = []

    def start(**arguments: Any) -> Cluster:
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium. No longer than a module: its loop is in the way of asyncio's."""
    path = shutil.which("chromium")
    assert path, "chromium is not installed: run `make system`, or install its package by hand"
    quiet = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=quiet)
        yield browser
        browser.close()


@pytest.fixture
def faults() -> list[str]:
    """What the browser complains about; what a test expects, it takes out."""
    return []


@pytest.fixture
def page(browser: Browser, faults: list[str]) -> Iterator[Page]:
    """An empty page, which must end without a fault."""

    def noted(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            faults.append(message.text)

    def dismissed(dialog: Dialog) -> None:
        faults.append(dialog.message)
        dialog.dismiss()

    context = browser.new_context(viewport={"width": 1300, "height": 900})
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", dismissed)
    page.on("console", noted)
    yield page
    context.close()
    assert faults == []
