"""`segmate download NAME`: get a public model, consciously and once; or --import one that is on this disk."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from SegMateCore.console import ProgressLine, interruptible, note, say
from SegMateCore.errors import Cancelled, SegMateError
from SegMateCore.notices import RESEARCH_ONLY

if TYPE_CHECKING:
    from SegMateCore.model_manifest import ManifestEntry


# Seconds between two reports of the same stage to a program.
_JSON_PAUSE_S = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `segmate download`."""
    parser.add_argument(
        "model", metavar="NAME", nargs="?", help="one of `segmate models --available`"
    )
    parser.add_argument(
        "--import",
        dest="files",
        metavar="FILE|FOLDER",
        type=Path,
        nargs="+",
        help="take the model from here instead of the web: what would be downloaded, a model folder of"
        " nnU-Net or a bundle of MONAI (also as .zip), a .safetensors, .onnx or .pth",
    )
    parser.add_argument("--name", help="of what is imported (default: the list's, else that of the file)")
    parser.add_argument(
        "--orientation",
        metavar="CODE",
        type=str.upper,
        help="of an imported nnU-Net folder that the list does not know: where the axes i, j and k of the"
        " images in its training pointed, e.g. RAS or LPS (default: as the folder says)",
    )
    parser.add_argument(
        "--accept-licence",
        action="store_true",
        help="take the model under its licence without being asked; needed where nobody can be asked"
        " (default: show the licence and ask)",
    )
    parser.add_argument(
        "--to",
        metavar="FOLDER",
        type=Path,
        help="where the model goes (default: $SEGMATE_MODELS, else this system's folder for programs' data)",
    )
    parser.add_argument(
        "--keep-archive", action="store_true", help="keep the downloaded files too (default: no)"
    )
    parser.add_argument(
        "--again", action="store_true", help="replace a model that is there already (default: leave it)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress (default: show it)")
    parser.add_argument(
        "--json",
        action="store_true",
        help="for programs: progress (sizes in MB) and result as JSON, one object a line, on stdout"
        " (default: text)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0, or 130 when it was stopped. Raises SegMateError for what the user can mend."""
    from SegMateCore.model_installation import Installation, import_model, install
    from SegMateCore.model_manifest import read_manifest
    from SegMateCore.models_folder import installed_models, models_folder, read_record

    manifest = read_manifest()
    if (arguments.model is None) == (arguments.files is None):
        raise SegMateError("give NAME (see `segmate models --available`), or --import FILE")
    for option in ("name", "orientation"):
        if arguments.model is not None and getattr(arguments, option) is not None:
            raise SegMateError(f"--{option} is for --import")
    folder = models_folder() if arguments.to is None else arguments.to
    name = arguments.model or arguments.name
    there = installed_models(folder=folder).get(name)
    if there is not None and not arguments.again:
        note(f"segmate: {name} is there already ({there}); --again replaces it")
        return 0
    entry = None
    if arguments.model is not None:
        entry = _entry(arguments.model, manifest)
        _agree(entry, arguments.accept_licence)
    try:
        with (
            interruptible("this piece") as asked,
            ProgressLine(arguments.quiet or arguments.json) as line,
        ):
            progress = _json_progress() if arguments.json else line
            options = {"orientation": arguments.orientation} if arguments.orientation else {}
            how = Installation(
                folder, progress, asked.is_set, arguments.keep_archive, arguments.again, options
            )
            if entry is not None:
                path = install(entry, how)
            else:
                path = import_model(arguments.files, arguments.name, manifest, how)
    except Cancelled:
        kept = "; what has come is kept, and the same command goes on from there" if entry else ""
        note(f"segmate: cancelled{kept}")
        return 130
    if arguments.json:
        say(json.dumps({"name": path.stem, "path": str(path), "record": read_record(path)}))
    else:
        _report(path, arguments.to is None)
    return 0


def _json_progress() -> Callable[[str, int, int], None]:
    """A few lines a second, and one for each new stage."""
    last = ["", 0.0]

    def report(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != last[0] or now - last[1] > _JSON_PAUSE_S:
            last[:] = stage, now
            say(json.dumps({"stage": stage, "done": done, "total": total}))

    return report


def _entry(name: str, manifest: dict[str, ManifestEntry]) -> ManifestEntry:
    import difflib

    if name in manifest:
        return manifest[name]
    close = difflib.get_close_matches(name, manifest, n=1)
    hint = f' Did you mean "{close[0]}"?' if close else ""
    raise SegMateError(f"no public model {name}: expected one of {', '.join(manifest)}.{hint}")


def _agree(entry: ManifestEntry, accepted: bool) -> None:
    """Show what it is and its licence; ask where somebody is there. Raises SegMateError where not agreed."""
    licence = entry.licence
    facts = [
        f"{entry.title}: {entry.architecture}, {entry.classes} structures at {entry.spacing_mm:g} mm",
        f"from     {entry.homepage}",
        f"download {entry.size_text}, {len(entry.sources)} file{'s' * (len(entry.sources) > 1)}",
        f"licence  {licence.identifier} ({licence.source})",
        f"for      {RESEARCH_ONLY}",
        *(f"cite     {line}" for line in entry.citations),
    ]
    note("\n".join(facts))
    if accepted:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise SegMateError(
            f"{entry.name} is under the licence {licence.identifier}; nobody can be asked here: read"
            f" {licence.text} and add --accept-licence"
        )
    note(f"\n{licence.text.read_text(encoding='utf-8').rstrip()}\n")
    sys.stderr.write(f"Download {entry.name} under this licence? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise SegMateError("not agreed: nothing was downloaded")


def _report(path: Path, by_name: bool) -> None:
    from SegMateCore.models_folder import read_record

    say(str(path))
    for source in read_record(path).get("sources", []):
        if "url" not in source or source.get("verified"):
            continue
        file = source["url"].rpartition("/")[2]
        if source.get("changed"):
            note(f"segmate: warning: {file} is not what was downloaded here before (other SHA-256)")
        note(f"unverified: nobody publishes a hash of {file}; its SHA-256 is {source.get('sha256')}")
    word = path.stem if by_name else path
    note(f"use it as --checkpoint {word}, or `segmate info {word}`")
