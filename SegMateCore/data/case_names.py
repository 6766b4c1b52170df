"""Which names may become a folder of a Store: those that are one folder, and the same one, on every system.

Takes a case's name as a data set has it, which may come out of a document that somebody else wrote; gives the
reason why it is unsuitable, or the folder.
"""

from __future__ import annotations

import re
from pathlib import Path

from SegMateCore.errors import SegMateError

# File systems allow 255 bytes, of which temporary names need some.
LONGEST_BYTES = 200
# Windows' rules are the strictest: https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_FORBIDDEN = re.compile(r'[\x00-\x1f<>:"/\\|?*]')
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)


def unsuitable_name(name: str) -> str | None:
    """Why `name` cannot be the name of a case, as the end of a sentence about it; None if it can."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if not 1 <= length <= LONGEST_BYTES:
        return f"has {length} bytes, expected 1 to {LONGEST_BYTES}"
    found = _FORBIDDEN.search(name)
    if found is not None:
        return f"has the character {found[0]!r}, which not every system takes in a file's name"
    if name != name.strip() or name.startswith(".") or name.endswith("."):
        return "begins or ends with a blank or a dot"
    if _DEVICE.fullmatch(name):
        return "is the name of a device on Windows"
    return None


def case_folder(cases: Path, name: str) -> Path:
    """The folder of the case `name` in the folder `cases`. Raises SegMateError for an unsuitable name."""
    problem = unsuitable_name(name)
    if problem is not None:
        raise SegMateError(f"the case's name {name!r} {problem}: rename it")
    return cases / name
