"""The documentation builds as a site, without a warning."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.process
def test_the_site_builds_and_needs_no_other_host(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pages = {it.relative_to(ROOT / "docs").with_suffix(".html") for it in ROOT.glob("docs/**/*.md")}
    assert {it for it in pages if not (tmp_path / it).is_file()} == set()
    home = (tmp_path / "index.html").read_text()
    assert re.findall(r'(?:src|rel="stylesheet" href)="(?:https?:)?//[^"]*"', home) == []
    # What lies outside docs/ is linked in the repository.
    assert "blob/main/deploy/kuberay" in (tmp_path / "getting-started.html").read_text()
