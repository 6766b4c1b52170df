"""Messages as the panel shows them: in its own words, not the command line's, with a capital at the start."""

from __future__ import annotations

import re

from slicer.i18n import tr as _

# A word of letters only: file names and paths stay as they are.
_PLAIN_WORD = re.compile(r"[a-z]+(?=[\s,:;])")


def in_panel(message: str) -> str:
    """What SegMateCore says of options, said of what is in the panel. Other messages stay as they are."""
    force = _('tick "Not a CT: segment anyway" under Advanced')
    torch = _("install PyTorch under Dependencies")
    device = _('choose "processor (CPU)" as device under Advanced')
    words = {
        "use --force (force=True)": force,
        "pip install 'segmate-core[torch]', then the same command": _("{torch}, then the download").format(
            torch=torch
        ),
        "give --device cpu": device,
        "use --device cpu": device,
    }
    for option, advice in words.items():
        message = message.replace(option, advice)
    return message


def as_sentence(message: str) -> str:
    """With a capital letter where it starts with a plain word."""
    return message[:1].upper() + message[1:] if _PLAIN_WORD.match(message) else message
