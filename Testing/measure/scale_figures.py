"""What 100,000 CTs take: computed from what a few of them take here. JSON, and the tables of docs/scale.md.

    python Testing/measure/scale_figures.py measure CT [--repeats 6] [--json docs/figures/scale.json]
    python Testing/measure/scale_figures.py tables [--price 0.05] [--write docs/scale.md]

`measure` sends copies of one CT through the local batch, as `segmate predict FOLDER` does, and counts per CT:
seconds, seconds of processor time (of all cores together), peak memory of the process, and bytes of every
kind of file. `tables` multiplies; --price is what a core costs per hour, in any currency: an assumption.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path

from SegMateCore.atomic import atomic_write
from SegMateCore.batch import DONE, Choices, Outputs, run_batch
from SegMateCore.benchmark.child import in_child
from SegMateCore.benchmark.process_memory import peak_resident_bytes
from SegMateCore.benchmark.this_machine import load_average, machine_facts
from SegMateCore.case_log import CaseLog
from SegMateCore.case_table import CaseTable
from SegMateCore.input_cases import Case
from SegMateCore.machine import cpu_count
from SegMateCore.opening import Opening
from SegMateCore.volume import Volume

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs" / "figures"
CTS = 100_000
CORES = (2, 100, 1000)
FORMS = ("nii.gz", "seg.nrrd")


def batch(ct: str, checkpoint: str, repeats: int, form: str) -> dict:
    """Means per CT over `repeats` copies, after one that is not counted; bytes of each kind of file."""
    predictor = Opening(checkpoint, "cpu").open()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        cases = [Case(f"ct_{number}", Path(ct)) for number in range(repeats + 1)]
        work = [(case, Outputs.in_folder(folder, case, form, folder / "preview")) for case in cases]
        table = CaseTable.read(folder / "organs.csv")
        with CaseLog(folder / "cases.jsonl") as log:
            for part in (work[:1], work[1:]):
                wall, processor = time.monotonic(), time.process_time()
                for result in run_batch(predictor, part, Choices(), lambda case, outputs: False):
                    if result.status != DONE:
                        raise RuntimeError(result.error)
                    table.replace(result.case.name, result.statistics, result.provenance)
                    table.write()
                    log.add(result)
                wall, processor = time.monotonic() - wall, time.process_time() - processor
        sizes = {
            "labels": (folder / f"ct_0.{form}").stat().st_size,
            "preview": (folder / "preview" / "ct_0.png").stat().st_size,
            "table": (folder / "organs.csv").stat().st_size // len(cases),
            "log": (folder / "cases.jsonl").stat().st_size // len(cases),
        }
    return {
        "seconds": round(wall / repeats, 3), "core_seconds": round(processor / repeats, 3),
        "peak_mb": round(peak_resident_bytes() / 1e6), "bytes": sizes,
    }  # fmt: skip


def measure(given: argparse.Namespace) -> None:
    """Write the figures of one CT."""
    load = load_average()
    volume = Volume.read(given.ct)
    figures = {
        "ct": {
            "name": given.ct.parent.name, "shape": list(volume.shape),
            "spacing_mm": [round(float(length), 3) for length in volume.spacing_mm],
            "bytes": given.ct.stat().st_size,
        },
        "checkpoint": given.checkpoint, "cores": cpu_count(), "repeats": given.repeats,
        "forms": {
            form: in_child(
                "scale_figures:batch",
                {"ct": str(given.ct), "checkpoint": given.checkpoint, "repeats": given.repeats, "form": form},
            )
            for form in FORMS
        },
    }  # fmt: skip
    figures["made"] = machine_facts(load)
    with atomic_write(given.json) as stream:
        stream.write((json.dumps(figures, indent=1) + "\n").encode())
    print(json.dumps(figures["forms"], indent=1))


def tables(figures: dict, soak: dict | None, price: float) -> dict[str, str]:
    """Markdown by name, of the figures of `measure` and of soak.py."""
    found = {"cts": _of_many(figures, price)}
    if soak is not None:
        found["soak"] = _of_soak(soak)
    return found


def _of_many(figures: dict, price: float) -> str:
    one, ct = figures["forms"][FORMS[0]], figures["ct"]
    hours = one["core_seconds"] * CTS / 3600
    size = " x ".join(str(count) for count in reversed(ct["shape"]))
    sizes = {form: figures["forms"][form]["bytes"] for form in FORMS}
    rows = [
        ("processor time", f"{one['core_seconds']:.1f} core-seconds", f"{hours:,.0f} core-hours"),
        (f"cost at {price:g} per core-hour", f"{hours * price / CTS:.5f}", f"{hours * price:,.0f}"),
    ]
    for cores in CORES:
        days = hours / cores / 24
        took = f"{days:,.1f} days" if days >= 2 else f"{days * 24:,.1f} hours"
        rows.append((f"time on {cores} cores", f"{one['core_seconds'] / cores:.3f} s", took))
    rows.append((f"CTs ({size}, .nii.gz)", *_both(ct["bytes"])))
    for form in FORMS:
        rows.append((f"labels as .{form}", *_both(sizes[form]["labels"])))
    rows += [
        ("preview", *_both(sizes[FORMS[0]]["preview"])),
        ("table of statistics and log", *_both(sizes[FORMS[0]]["table"] + sizes[FORMS[0]]["log"])),
        ("peak memory of a process", f"{one['peak_mb'] / 1000:.1f} GB", "the same"),
    ]
    return _markdown(("", "one CT", f"{CTS:,} CTs"), rows)


def _of_soak(soak: dict) -> str:
    names = {
        "local": f"`run_batch`, {soak['parts']['local']['made']['cores']} threads",
        "ray": f"Ray, {soak['workers']} workers", "killed": f"Ray, {soak['workers']} workers, some killed",
    }  # fmt: skip
    rows = []
    for part, name in names.items():
        if part not in soak["parts"]:
            continue
        found, checked = soak["parts"][part], soak["parts"][part]["checked"]
        slope = found["memory_mb_per_100"]
        rows.append((
            name, str(found.get("kills", 0)), f"{checked['done_once']} of {checked['cases']}",
            str(len(checked["different"])), f"{found['cases_per_minute']:.1f}",
            "-" if slope is None else f"{slope:+.1f}",
        ))  # fmt: skip
    header = ("", "kills", "done exactly once", "labels differ", "CTs per minute", "MB per 100 CTs")
    return _markdown(header, rows)


def _both(count: int) -> tuple[str, str]:
    return _size(count), _size(count * CTS)


def _size(count: float) -> str:
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count /= 1000
        units.pop(0)
    return f"{count:.0f} {units[0]}" if units[0] == "bytes" or count >= 100 else f"{count:.1f} {units[0]}"


def _markdown(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_tables(text: str, found: dict[str, str]) -> str:
    """The document with each table in the place that is marked for it."""
    for name, table in found.items():
        pattern = rf"(<!-- table {name} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text, flags=re.S)
    return text


def read_figures() -> tuple[dict, dict | None]:
    """The published ones of scale.json and soak.json."""
    soak = FIGURES / "soak.json"
    scale = json.loads((FIGURES / "scale.json").read_text())
    return scale, json.loads(soak.read_text()) if soak.is_file() else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("ct", type=Path)
    measuring.add_argument("--checkpoint", default="demo")
    measuring.add_argument("--repeats", type=int, default=6)
    measuring.add_argument("--json", type=Path, default=FIGURES / "scale.json")
    drawing = commands.add_parser("tables")
    drawing.add_argument("--price", type=float, default=0.05, help="of a core per hour")
    drawing.add_argument("--write", type=Path, help="a document to put them into")
    given = parser.parse_args()
    if given.command == "measure":
        measure(given)
        return 0
    found = tables(*read_figures(), given.price)
    if given.write is None:
        print("\n\n".join(found.values()))
        return 0
    text = with_tables(given.write.read_text(encoding="utf-8"), found)
    with atomic_write(given.write) as stream:
        stream.write(text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
