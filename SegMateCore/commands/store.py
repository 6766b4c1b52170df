"""`segmate store info STORE`: counts, sizes, the balance of the organs, and a picture of the cases."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from SegMateCore.console import note, say, table
from SegMateCore.errors import SegMateError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `segmate store`."""
    parser.add_argument("action", choices=("info",), help="info: say what is in the Store")
    parser.add_argument("stores", metavar="STORE", type=Path, nargs="+", help="folder that prepare has made")
    parser.add_argument(
        "--sheet",
        metavar="PNG",
        type=Path,
        help="draw a slice of each case, organs outlined (one Store only)",
    )
    parser.add_argument(
        "--most", metavar="N", type=int, default=60, help="cases on the sheet (default: %(default)s)"
    )
    parser.add_argument(
        "--check", action="store_true", help="read every file and compare its hash (default: sizes only)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON, volumes in ml (default: text)")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0, or 1 when --check finds damage. Raises SegMateError for what is no Store."""
    from SegMateCore.data.store import Store
    from SegMateCore.data.store_report import summary

    _check(arguments)
    stores = [Store.open(path) for path in arguments.stores]
    reports = [summary(store) for store in stores]
    if arguments.json:
        say(json.dumps(reports, indent=1))
    else:
        say("\n\n".join(_text(report) for report in reports))
    if arguments.sheet is not None:
        from SegMateCore.data.contact_sheet import draw_contact_sheet

        count = draw_contact_sheet(stores[0], arguments.sheet, arguments.most)
        note(f"wrote {arguments.sheet}: {count} of {len(stores[0].cases)} cases")
    return _damage(stores) if arguments.check else 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.sheet is None:
        return
    if len(arguments.stores) > 1:
        raise SegMateError(f"--sheet draws one Store, {len(arguments.stores)} were given")
    if arguments.sheet.suffix.lower() != ".png":
        raise SegMateError(f"--sheet {arguments.sheet}: expected a file ending in .png")
    if arguments.most < 1:
        raise SegMateError(f"--most is {arguments.most}, expected at least 1")


def _damage(stores: list) -> int:
    from SegMateCore.data.store_report import damaged_files

    damaged = [(store, name) for store in stores for name in damaged_files(store)]
    for store, name in damaged:
        note(f"segmate: {store.folder}: {name} is damaged: delete the case's folder and run prepare again")
    if not damaged:
        note("every file is as it was written")
    return 1 if damaged else 0


def _text(report: dict) -> str:
    spacing = report["spacing_mm"]
    parts = ", ".join(f"{count} {name}" for name, count in report["parts"].items())
    grid = "each CT's own grid" if spacing is None else f"{' x '.join(f'{mm:g}' for mm in spacing)} mm"
    lines = [
        f"{report['store']}: {report['dataset']}, {grid}",
        f"origin {report['origin']}; licence {report['licence']}",
        f"{report['cases']} cases of {report['patients']} patients, {report['slices']} slices",
        f"split {report['split']}: {parts}",
    ]
    if not report["complete"]:
        lines.append("unfinished: the same `segmate prepare` goes on with it")
    sizes = ((text, f"{size / 1e6:,.1f}") for text, size in report["bytes"].items())
    total = ("all", f"{sum(report['bytes'].values()) / 1e6:,.1f}")
    rows = [
        (
            row["organ"],
            row["annotated"],
            row["present"],
            row["slices"],
            f"{100 * row['slice_share']:.1f}",
            "-" if row["median_ml"] is None else f"{row['median_ml']:.1f}",
        )
        for row in report["organs"]
    ]
    header = ("organ", "cases annotated", "present", "slices", "% of slices", "median ml")
    lines += ["", table([*sizes, total], ("files", "MB")), "", table(rows, header)]
    lines += [f"left out: {entry['name']}: {entry['reason']}" for entry in report["left_out"]]
    lines += [f"as prepared earlier: {entry['name']}: {entry['reason']}" for entry in report["stale"]]
    lines += [f"the same CT: {', '.join(names)}" for names in report["same_ct"]]
    lines += [f"odd: {name}: {'; '.join(texts)}" for name, texts in report["warnings"].items()]
    return "\n".join(lines)
