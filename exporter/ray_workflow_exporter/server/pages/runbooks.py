"""The runbooks as pages, from the Markdown files that the package ships."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Optional

from markdown_it import MarkdownIt
from markdown_it.token import Token

_FOLDER = Path(__file__).parents[2] / "runbooks"
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


@cache
def page(name: str) -> Optional[str]:
    """Return the HTML of a runbook, or of the list of all for `index`; None if there is none."""
    files = {path.stem: path for path in sorted(_FOLDER.glob("*.md"))}
    if name == "index":
        text = "# Runbooks\n\n" + "".join(f"- [{it}]({it}.md)\n" for it in files)
    elif name in files:
        text = files[name].read_text(encoding="utf-8")
    else:
        return None
    tokens = _MARKDOWN.parse(text)
    for token in tokens:
        _keep_links(token.children or [], files)
    return str(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))


def _keep_links(tokens: list[Token], files: dict[str, Path]) -> None:
    """Lead links between runbooks to their pages; turn those to other files into plain text."""
    plain: list[bool] = []
    for token in tokens:
        if token.type == "link_open":
            target = str(token.attrs["href"]).partition("#")[0]
            stem = target[: -len(".md")] if target.endswith(".md") else ""
            if stem in files:
                token.attrs["href"] = stem
            plain.append(stem not in files and not target.startswith(("https://", "http://")))
            if plain[-1]:
                token.tag, token.attrs = "span", {}
        elif token.type == "link_close" and plain.pop():
            token.tag = "span"
