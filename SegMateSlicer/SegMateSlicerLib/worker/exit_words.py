"""How a process ended, in plain words.

Takes its exit code and the end of its log, gives the end of a sentence that starts with its name.
"""

from __future__ import annotations

from collections.abc import Iterable

from slicer.i18n import tr as _

_CRASHES = (4, 6, 7, 8, 10, 11)
"""Numbers of signals (illegal instruction, abort, bus error...) that a fault of a library ends with."""
_KILL = 9

_LAUNCHERS_WORDS = "exit abnormally - Report the problem"
"""What PythonSlicer, a launcher that stands between us and Python, prints where Python crashed or was killed.
It then ends with exit code 1 itself, whatever ended Python."""
_LAST_LINES = 3
"""Where those words are looked for: other lines of the log come through another pipe, and may be later."""


def describe_exit(code: int, log: Iterable[str] = ()) -> str:
    """code: as subprocess gives it; log: the lines that the process and its launcher have printed."""
    lines = [line for line in log if line.strip()]
    if any(is_launchers(line) for line in lines[-_LAST_LINES:]):
        return _("crashed or was ended by the system, often for too little memory")
    # A shell between us and the worker gives the signal as 128 and more.
    number = -code if code < 0 else code - 128 if 128 < code < 160 else 0
    if number == _KILL:
        return _("was ended by signal {number}, often the system's answer to too little memory").format(
            number=number
        )
    if number in _CRASHES:
        return _("was ended by signal {number}: one of its libraries crashed").format(number=number)
    if number:
        return _("was ended by signal {number}").format(number=number)
    windows = _windows_exits()
    if code in windows:
        return windows[code]
    return _("ended by itself") if code == 0 else _("ended with the exit code {code}").format(code=code)


def is_launchers(line: str) -> bool:
    """Whether this line of a log is the launcher's, who says that Python did not end by itself."""
    return _LAUNCHERS_WORDS in line


def _windows_exits() -> dict[int, str]:
    """Exit codes of Windows for which there is a plain word."""
    return {
        0xC0000005: _("crashed in one of its libraries (access violation)"),
        0xC0000017: _("found too little memory"),
        0xC0000409: _("crashed in one of its libraries (stack overrun)"),
        0xC0000135: _("did not find one of its libraries (DLL)"),
    }
