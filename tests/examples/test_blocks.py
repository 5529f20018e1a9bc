"""A block of Python in the docs can be copied as it stands: it imports what is ours or Airflow's; the rest is the reader's."""

from __future__ import annotations

import ast
import builtins
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in PAGES
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL))
]

READERS_OWN = {
    *("files", "load_file", "clean_file", "create_cluster", "delete_cluster", "is_running"),
    *("db", "insert_rows", "read", "upsert"),
}
"""What the blocks do not make up: the reader's items and work."""

READERS_MODULES = {"render_farm", "data_quality"}


def unknown_in(tree: ast.Module) -> set[str]:
    known, used = set(dir(builtins)), set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                known |= {(each.asname or each.name).partition(".")[0] for each in names}
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                known.add(name)
            case ast.ExceptHandler(name=str(name)) | ast.arg(arg=name):
                known.add(name)
            case ast.Name(id=name, ctx=ast.Load()):
                used.add(name)
            case ast.Name(id=name):
                known.add(name)
    return used - known


@pytest.mark.parametrize("code", BLOCKS)
def test_a_block_of_the_docs_imports_all_that_is_not_the_readers_own(code: str) -> None:
    assert unknown_in(ast.parse(code)) <= READERS_OWN


@pytest.mark.parametrize("code", BLOCKS)
def test_a_block_of_the_docs_runs_as_a_file_of_dags_does(code: str) -> None:
    tree = ast.parse(code)
    if any(isinstance(node, ast.With) for node in tree.body):
        pytest.skip("it stands in a task")
    if any(isinstance(node, ast.Import) and node.names[0].name in READERS_MODULES for node in tree.body):
        pytest.skip("tests/examples/test_custom_operators.py runs it")
    exec(compile(tree, "block", "exec"), {"__name__": "block"})


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 9
