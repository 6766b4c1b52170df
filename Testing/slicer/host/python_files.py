"""slicer.ScriptedLoadableModule, parameterNodeWrapper, i18n and packaging, which the wheel lacks.

Where SLICER_SOURCE names a checkout of Slicer's sources these are Slicer's own files, else the host's
stand-ins; pip is replaced in both.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import slicer

from host import packaging

STAND_INS = {
    "i18n": "host.i18n",
    "ScriptedLoadableModule": "host.scripted_module",
    "parameterNodeWrapper": "host.parameter_node",
    "packaging": "host.packaging",
}


def install() -> bool:
    """Make the modules importable from `slicer`; gives whether they are Slicer's own."""
    source = os.environ.get("SLICER_SOURCE")
    if source:
        folder = Path(source, "Base", "Python", "slicer")
        if not folder.is_dir():
            raise FileNotFoundError(f"SLICER_SOURCE is {source}, but there is no folder {folder}")
        slicer.__path__.append(str(folder))
    for name, stand_in in STAND_INS.items():
        module = importlib.import_module(f"slicer.{name}" if source else stand_in)
        sys.modules[f"slicer.{name}"] = module
        setattr(slicer, name, module)
    slicer.packaging.pip_install = packaging.installer.install
    slicer.packaging.pip_uninstall = packaging.installer.install
    return bool(source)
