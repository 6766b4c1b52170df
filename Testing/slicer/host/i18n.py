"""Stand-in for slicer.i18n: every text stays as it is."""

from __future__ import annotations

__all__ = ["tr", "translate", "getContext"]


def translate(_context, text):
    return text


def tr(text):
    return text


def getContext(sourceFile):
    return sourceFile
