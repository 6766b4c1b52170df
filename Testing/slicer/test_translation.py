"""What users read can be translated: errors go through _(), whose texts are literals with named places."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from runs import ROOT

FILES = sorted((ROOT / "SegMateSlicer" / "SegMateSlicerLib").rglob("*.py"))
SHOWN = {"SegMateError", "WorkerDied", "Cancelled"}


def calls_of(tree: ast.AST, names: set[str]) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            yield node


def is_bare(node: ast.expr) -> bool:
    """Whether a text or a part of it is written here and not inside of _()."""
    if isinstance(node, ast.BinOp):
        return is_bare(node.left) or is_bare(node.right)
    if isinstance(node, ast.IfExp):
        return is_bare(node.body) or is_bare(node.orelse)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        return is_bare(node.func.value)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def untranslated(tree: ast.AST) -> list[int]:
    """Lines of errors whose text is a bare string or f-string."""
    return [error.lineno for error in calls_of(tree, SHOWN) if any(map(is_bare, error.args))]


def not_literal(tree: ast.AST) -> list[int]:
    """Lines of _() with anything but one literal string: no translator's tool finds such a text."""
    return [
        call.lineno
        for call in calls_of(tree, {"_"})
        if len(call.args) != 1
        or not isinstance(call.args[0], ast.Constant)
        or not isinstance(call.args[0].value, str)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_errors_are_translated(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert untranslated(tree) == []
    assert not_literal(tree) == []


@pytest.mark.parametrize(
    "source, found",
    [
        ("raise SegMateError('no CT')", True),
        ("raise SegMateError(f'{name} is no CT')", True),
        ("raise SegMateError('{name} is no CT'.format(name=name))", True),
        ("raise SegMateError(_('no CT') + f' in {name}')", True),
        ("raise SegMateError(_('no CT'))", False),
        ("raise SegMateError(_('{name} is no CT').format(name=', '.join(names)))", False),
        ("raise SegMateError(str(error))", False),
    ],
)
def test_the_rule_itself(source, found):
    assert bool(untranslated(ast.parse(source))) == found


def test_a_text_that_is_no_literal_is_found():
    assert not_literal(ast.parse("_(f'{name} is no CT')")) == [1] and not_literal(ast.parse("_('a')")) == []
