"""Links, anchors and pictures in README, changelog and docs are valid."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from ray_workflow_exporter.metrics.families import FAMILIES
from ray_workflow_exporter.metrics.family import META_LABELS
from support.expositions import parsed

ROOT = Path(__file__).parents[3]
README = ROOT / "README.md"
PAGES = sorted({README, ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")})
CODE = re.compile(r"^ *```.*?^ *```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def targets(page: Path) -> list[tuple[Path, str]]:
    """Return path and anchor of each link and picture of a page that leads into the repository."""
    found = []
    for link in re.findall(r"\]\(([^)\s]+)", CODE.sub("", page.read_text())):
        if not re.match(r"[a-z]+:", link):
            path, _, anchor = unquote(link).partition("#")
            found.append(((page.parent / path).resolve() if path else page, anchor))
    return found


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    # A line of code that begins with `#` is not a heading.
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    known: set[str] = set()
    for heading in re.findall(r"^#+ (.*)", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        repeats = sum(re.fullmatch(re.escape(slug) + r"(-\d+)?", it) is not None for it in known)
        known.add(f"{slug}-{repeats}" if repeats else slug)
    return known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_point_to_existing_files_and_headings(page: Path) -> None:
    for path, anchor in targets(page):
        assert path.exists(), path
        assert not anchor or anchor in anchors(path), f"{path}#{anchor}"


def test_every_page_and_picture_is_reachable_from_the_readme() -> None:
    found, ahead = {README}, [README]
    while ahead:
        news = {path for path, _ in targets(ahead.pop())} - found
        found |= news
        ahead += [path for path in news if path.suffix == ".md"]
    there = {*PAGES, *ROOT.glob("docs/images/*")}
    assert there - found == set()


def test_every_picture_is_a_complete_png() -> None:
    for picture in ROOT.glob("docs/images/*"):
        content = picture.read_bytes()
        assert content.startswith(b"\x89PNG\r\n"), picture
        assert content.endswith(b"IEND\xae\x42\x60\x82"), picture


def test_samples_in_the_readme_have_the_names_and_labels_of_the_families() -> None:
    labels = {it.name: (*it.scope.labels, *it.labels) for it in FAMILIES}
    lines = re.findall(r"^ray_workflow_.*$", README.read_text(), re.MULTILINE)
    assert lines
    for line in lines:
        (family,) = parsed(line.encode() + b"\n")
        (sample,) = family.samples
        assert tuple(sample.labels) == tuple(it for it in labels[sample.name] if it != META_LABELS)
