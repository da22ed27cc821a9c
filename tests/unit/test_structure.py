"""How the parts may depend on each other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import ray_workflow_exporter

PACKAGE = Path(ray_workflow_exporter.__file__).parent

# Each part may import what stands in an earlier row, and its own row.
ROWS = (
    ("model", "palette", "display", "timebox", "rays", "launch", "layered"),
    ("naming", "pending", "stages", "dag", "history", "cause", "analysis", "sources.records"),
    ("snapshot",),
    ("values", "settings", "statefiles", "logs", "sources.pickle_machine", "sources.pickles"),
    ("sources.files", "sources.layout", "sources.outline", "sources.reading", "sources.storage"),
    ("sources.probe", "sources.mirror", "sources.remote_action"),
    ("sources.acting", "sources.task_states", "sources.ray_link", "sources.running"),
    ("truth", "ledger"),
    ("catalog", "details", "assembly", "runcache", "loading", "storage_reader"),
    ("archive", "tracked", "poller"),
    ("metrics.contract", "metrics.text", "metrics.families", "metrics.blocks"),
    ("metrics.selfmetrics", "metrics.exposition", "metrics.reference"),
    ("actions",),
    ("exporter", "jsonable"),
    ("server.source", "server.scrape", "server.contract", "server.schemas", "server.drawing"),
    ("server.limits", "server.reloaded", "server.tokens", "server.webconfig", "server.security"),
    ("server.api", "server.events", "server.actions", "server.operations", "server.openapi"),
    ("server.buttons", "server.runs_page", "server.run_page", "server.pages"),
    ("server.app", "server.listening"),
    ("client", "terminal"),
    ("agent.files", "agent.node", "agent.supervisor", "agent.install"),
    ("agent.child", "agent.forward", "agent.modules"),
    ("commands.options", "commands.look", "commands.act", "commands.dashboard"),
    ("commands.serve", "commands.token", "commands.files"),
    ("cli", "__main__"),
)
RANK = {module: rank for rank, row in enumerate(ROWS) for module in row}


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        if path.name != "__init__.py":
            found[".".join(path.relative_to(PACKAGE).with_suffix("").parts)] = path
    return found


def imports(module: str, path: Path) -> set[str]:
    """Return the modules of ours that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = module.split(".")[: -node.level]
            base = [*package, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                for name in (".".join([*base, alias.name]), ".".join(base)):
                    if name in RANK:
                        found.add(name)
                        break
    return found


def test_every_module_has_its_place() -> None:
    assert set(modules()) == set(RANK)


def test_imports_run_one_way() -> None:
    wrong = {
        f"{module} imports {other}"
        for module, path in modules().items()
        for other in imports(module, path)
        if RANK[other] > RANK[module]
    }
    assert wrong == set()


def test_the_model_imports_nothing_of_ours() -> None:
    assert imports("model", modules()["model"]) == set()


def test_only_the_link_and_the_probe_touch_ray() -> None:
    touching = {
        module
        for module, path in modules().items()
        if re.search(r"^\s*(import ray\b|from ray\b)", path.read_text(), re.MULTILINE)
    }
    assert touching == {
        *("sources.ray_link", "sources.probe", "sources.remote_action", "sources.task_states"),
        *("client", "agent.modules"),
    }


def test_nothing_is_ever_unpickled_but_our_own_probe() -> None:
    users = {
        module
        for module, path in modules().items()
        if re.search(r"pickle\.loads?\b|Unpickler", path.read_text())
    }
    assert users == {"sources.ray_link"}


def test_no_file_is_longer_than_a_head_holds() -> None:
    lengths = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert {name: length for name, length in lengths.items() if length > 420} == {}
