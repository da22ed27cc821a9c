"""A client of the pages, and a reader of their HTML."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any, Optional
from urllib.parse import quote

from aiohttp.test_utils import TestClient
from yarl import URL

Client = TestClient[Any, Any]


VOID = {"meta", "link", "input", "br"}


class Page(HTMLParser):
    """Elements of a page, with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, Optional[str]]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == [], "elements that are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Optional[str]]]) -> None:
        found = dict(attrs)
        assert "style" not in found, "the Content-Security-Policy forbids it"
        assert not [name for name in found if name.startswith("on")]
        self.elements.append((tag, found))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, Optional[str]]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def links(self) -> list[str]:
        return [it["href"] or "" for it in self.all("a")]


async def get(client: Client, path: str, status: int = 200) -> Page:
    answer = await client.get(URL(path, encoded=True))
    assert answer.status == status
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    return Page(await answer.text())


def of(workflow_id: str) -> str:
    return "/workflows/" + quote(workflow_id, safe="", errors="replace")


def rows(page: Page) -> list[str]:
    return [it["id"] or "" for it in page.all("tr") if "id" in it]
