"""What Slicer's start costs: the module's files only define, and import nothing that Slicer lacks."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from runs import MODULE_FILE, ROOT

OWN = {"SegMateCore", "SegMateSlicerLib"}
SLICERS = {"slicer", "vtk", "qt", "ctk", "numpy"}
FILES = sorted((ROOT / "SegMateSlicer").rglob("*.py"))
LIMIT_MS = 50
MEASURED = """
import sys
sys.path[:0] = {paths!r}
import host, time
host.start()
import slicer.ScriptedLoadableModule, slicer.util, slicer.i18n
sys.path.insert(0, {folder!r})
before = time.perf_counter()
import SegMateSlicer
print("MS", 1000 * (time.perf_counter() - before))
own = ("SegMateSlicerLib", "SegMateCore")
print("LIB", sorted(name for name in sys.modules if name.split(".")[0] in own))
"""


def imported_at_file_scope(tree: ast.Module) -> set[str]:
    roots = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            roots |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            roots.add(node.module.split(".")[0])
    return roots


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_third_party_import_and_no_work_at_file_scope(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    allowed = OWN | SLICERS | set(sys.stdlib_module_names)
    assert imported_at_file_scope(tree) <= allowed
    definitions = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    work = [
        node.lineno for node in tree.body
        if not isinstance(node, definitions)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    ]  # fmt: skip
    assert work == []


def test_importing_the_module_takes_little_and_brings_nothing_else_in():
    folder = str(MODULE_FILE.parent)
    program = MEASURED.format(paths=[str(Path(__file__).parent)], folder=folder)
    times_ms = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        told = [line for line in done.stdout.splitlines() if line.startswith(("MS ", "LIB "))]
        lines = dict(line.split(" ", 1) for line in told)
        assert lines["LIB"] == "[]"
        times_ms.append(float(lines["MS"]))
    # The least of three: what else the machine does is not the module's.
    assert min(times_ms) < LIMIT_MS
