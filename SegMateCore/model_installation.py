"""From an entry of the list, or from files on this disk, to one checkpoint in the models' folder.

The way: download (or take what is given) -> check size and hash -> unpack beside -> convert -> read the
result -> one rename. Files stay in downloads/NAME until that rename, so that whatever ends the way (a full
disk, Ctrl-C, a missing library) costs no second download.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath

from SegMateCore.archives import BadArchive, unpack
from SegMateCore.atomic import atomic_path
from SegMateCore.bundled import bundled_checkpoints
from SegMateCore.cancelling import IsCancelled
from SegMateCore.checkpoint import Checkpoint
from SegMateCore.data.store_lock import only_here
from SegMateCore.download import Expected, Received, check_file, download
from SegMateCore.errors import SegMateError
from SegMateCore.model_folders import entries_below, find_model_folders, wanted_folders
from SegMateCore.model_manifest import ManifestEntry, Source, checked_model_name
from SegMateCore.models_folder import (
    SUFFIXES,
    download_folder,
    installed_models,
    models_folder,
    read_record,
    record_path,
    write_record,
)
from SegMateCore.version import __version__

# progress(stage, done, total); sizes are in MB
Progress = Callable[[str, int, int], None]


@dataclass
class Installation:
    """Where a model goes, and who hears of it.

    keep: leave the files that were downloaded. replace: an import may take the place of a model. options: of
    the conversion of folders that the list does not know (convert.py's convert_folders).
    """

    folder: Path | None = None
    progress: Progress | None = None
    cancelled: IsCancelled = None
    keep: bool = False
    replace: bool = False
    options: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        self.folder = models_folder() if self.folder is None else self.folder

    def megabytes(self, stage: str) -> Callable[[int, int], None]:
        """A progress of bytes."""

        def report(done: int, total: int) -> None:
            if self.progress is not None:
                self.progress(stage, round(done / 1e6), round(total / 1e6))

        return report


def install(entry: ManifestEntry, how: Installation) -> Path:
    """Download a model and convert it; the file, whose record (models_folder.py) says what was verified.

    Raises SegMateError, and Cancelled; the next call goes on from there.
    """
    work = download_folder(entry.name, how.folder)
    with only_here(work, "downloaded"):
        received = []
        for number, source in enumerate(entry.sources, 1):
            stage = f"download {number} of {len(entry.sources)}"
            received.append(
                download(
                    source.url, work / "files" / source.file_name, Expected(source.bytes, source.hash),
                    how.megabytes(stage), how.cancelled,
                )
            )
        try:
            path = _from_files(entry, received, work, how)
        except BadArchive:
            for file in received:
                if not file.verified:
                    file.path.unlink(missing_ok=True)  # or the next call would find it and stop here again
            raise
    if not how.keep:
        shutil.rmtree(work, ignore_errors=True)
    return path


def import_model(
    paths: Sequence[Path], name: str | None, manifest: dict[str, ManifestEntry], how: Installation
) -> Path:
    """Take a model from files: what `install` would download, a model folder or a ZIP file of it, a
    checkpoint, or a .pth of the original project.

    name: of the list, or any other; None: that of the list to which the files belong, or the first file's.
    Raises SegMateError, and Cancelled.
    """
    for path in paths:
        if not path.exists():
            raise SegMateError(f"there is no {path}; expected a file or a folder to import")
    name = checked_model_name(name or _name_of(paths, manifest))
    if name in bundled_checkpoints():
        raise SegMateError(f'"{name}" names a checkpoint that came with SegMate: give another --name')
    there = installed_models(folder=how.folder).get(name)
    if there is not None and not how.replace:
        raise SegMateError(f"{there} is there already: give another --name, or --again to replace it")
    entry = manifest.get(name)
    work = how.folder / "downloads" / f"{name}.import"
    with only_here(work, "imported"):
        _clear(work / "content")  # what a killed import has left
        try:
            files = None if entry is None else _files_of(entry, paths)
            if files is not None:
                checked = [
                    check_file(path, Expected(source.bytes, source.hash), how.cancelled)
                    for path, source in zip(files, entry.sources)
                ]
                return _from_files(entry, checked, work, how)
            if len(paths) == 1 and paths[0].is_file() and paths[0].suffix.lower() != ".zip":
                return _from_checkpoint(paths[0], name, entry, work, how)
            return _from_folders(paths, name, entry, work, how)
        finally:
            _clear(work)


def _from_files(entry: ManifestEntry, received: Sequence[Received], work: Path, how: Installation) -> Path:
    """Put each source into its place, then convert."""
    content = work / "content"
    _clear(content)
    for source, file in zip(entry.sources, received):
        target = content.joinpath(*PurePosixPath(source.place).parts)
        if source.unpack:
            unpack(file.path, target, None, how.megabytes("unpack"), how.cancelled)
        else:
            with atomic_path(target) as temporary:
                shutil.copyfile(file.path, temporary)
    try:
        folders = wanted_folders(entry, find_model_folders([content]))
    except SegMateError as error:
        raise BadArchive(str(error)) from None  # something else came from there
    record = _record(entry.name, entry)
    record["sources"] = [_origin(source, file) for source, file in zip(entry.sources, received)]
    made = _converted(folders, dict(entry.options), entry.name, work, how)
    _clear(content)
    return _put(made, entry.name, record, how)


def _from_folders(
    paths: Sequence[Path], name: str, entry: ManifestEntry | None, work: Path, how: Installation
) -> Path:
    roots = []
    for number, path in enumerate(paths):
        if path.is_dir():
            roots.append(path)
            continue
        roots.append(work / "content" / str(number))
        unpack(path, roots[-1], None, how.megabytes("unpack"), how.cancelled)
    found = find_model_folders(roots)
    files = [file for root in roots for file in entries_below(root)]
    ready = [file for file in files if file.suffix.lower() in SUFFIXES]
    if len(ready) == 1 and not found:
        return _from_checkpoint(ready[0], name, entry, work, how)
    if entry is not None:
        folders = wanted_folders(entry, found)
    elif len(found) == 1:
        folders = found
    else:
        what = "; ".join(str(folder) for folder in found) or "none"
        raise SegMateError(
            f"{', '.join(map(str, paths))}: expected one model folder (with plans.json and dataset.json, or"
            f" configs and models), found {what}; give that folder, or join several by `segmate convert`"
        )
    record = _record(name, entry)
    record["sources"] = [{"path": str(path.absolute())} for path in paths]
    made = _converted(folders, dict(entry.options) if entry else how.options, name, work, how)
    return _put(made, name, record, how)


def _from_checkpoint(
    path: Path, name: str, entry: ManifestEntry | None, work: Path, how: Installation
) -> Path:
    """A checkpoint is copied, a .pth of the original project converted."""
    record = _record(name, entry)
    file = check_file(path, Expected(), how.cancelled)
    record["sources"] = [{"path": str(path.absolute()), "bytes": file.bytes, "sha256": file.sha256}]
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        made = work / f"{name}{suffix}"
        with atomic_path(made) as temporary:
            shutil.copyfile(path, temporary)
    else:
        made = _converted([path], {}, name, work, how)
    return _put(made, name, record, how)


def _converted(
    inputs: Sequence[Path], options: dict[str, str], name: str, work: Path, how: Installation
) -> Path:
    """Folders, or one .pth, as one .safetensors in the working folder."""
    from SegMateCore import convert

    if how.progress is not None:
        how.progress("convert", 0, 1)
    made = work / f"{name}.safetensors"
    try:
        if inputs[0].is_file():
            convert.convert(inputs[0], made)
        else:
            convert.convert_folders(inputs, made, progress=how.progress, **options)
    except ImportError as error:
        raise SegMateError(
            f"converting {name} needs PyTorch ({error}): pip install 'segmate-core[torch]', then the same"
            " command goes on from here"
        ) from None
    return made


def _put(made: Path, name: str, record: dict, how: Installation) -> Path:
    """Read the checkpoint whole, then move it to where its name finds it."""
    checkpoint = Checkpoint.read(made)
    if not checkpoint.is_onnx:
        checkpoint.weights()  # verifies the hash of all of them
    target = how.folder / f"{name}{made.suffix}"
    before = {source.get("url"): source.get("sha256") for source in read_record(target).get("sources", [])}
    for source in record["sources"]:
        known = before.get(source.get("url"))
        source["changed"] = known is not None and known != source.get("sha256")
    record["weights_sha256"] = checkpoint.weights_sha256
    try:
        # Whatever fails on the way, no record tells of another file than the one beside it.
        record_path(target).unlink(missing_ok=True)
        os.replace(made, target)
        for suffix in SUFFIXES:
            if suffix != made.suffix:
                # It has the same name, and might be taken instead.
                (how.folder / f"{name}{suffix}").unlink(missing_ok=True)
    except OSError as error:
        raise SegMateError(f"cannot write {target}: {error.strerror or error}") from error
    write_record(target, record)
    return target


def _files_of(entry: ManifestEntry, paths: Sequence[Path]) -> list[Path] | None:
    """The given file of each source, by its name; None where one is missing."""
    by_name = {path.name: path for path in paths if path.is_file()}
    found = [
        by_name.get(source.file_name) or (None if source.unpack else by_name.get(Path(source.place).name))
        for source in entry.sources
    ]
    return None if None in found else found


def _name_of(paths: Sequence[Path], manifest: dict[str, ManifestEntry]) -> str:
    """The one entry to which all files belong, or the stem of the first."""
    entries = [entry.name for entry in manifest.values() if _files_of(entry, paths) is not None]
    if len(entries) > 1:
        raise SegMateError(f"{paths[0].name} belongs to {' and '.join(entries)}: choose one with --name")
    if entries:
        return entries[0]
    # Made absolute, since "." has no name.
    return paths[0].absolute().resolve().name if paths[0].is_dir() else paths[0].stem


def _record(name: str, entry: ManifestEntry | None) -> dict:
    record: dict = {
        "name": name,
        "installed": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "segmate": __version__,
    }
    if entry is not None:
        record |= {
            "title": entry.title,
            "licence": entry.licence.identifier,
            "homepage": entry.homepage,
            "citations": list(entry.citations),
        }
    return record


def _origin(source: Source, file: Received) -> dict:
    return {"url": source.url, "bytes": file.bytes, "sha256": file.sha256, "verified": file.verified}


def _clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
