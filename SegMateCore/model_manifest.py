"""The public models that `segmate download` knows: what each is, where it comes from and under which licence.

Takes resources/manifest.json (or another file of that format), gives values. Every fact in it is the
publisher's: addresses and trainers' names as in TotalSegmentator's map_tasks_config.py, hashes as in the
model zoo's large_files.yml or of its files at the commit that the address names. A size that nobody publishes
is null; `about_bytes` is what others report, shown and never relied on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from SegMateCore.errors import SegMateError
from SegMateCore.json_text import parse_json

FORMAT, VERSION = "segmate-model-manifest", 1
RESOURCES = Path(__file__).parent / "resources"
KINDS = ("nnunet", "monai", "segmate")
HASH_DIGITS = {"md5": 32, "sha256": 64}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Source:
    """One file on the web.

    place: where it goes below the folder that is converted: a file, or (unpack) a folder for what the archive
    holds. bytes: its size, None where it is not published; about_bytes: the size that others report. hash:
    (algorithm, hexadecimal digits), None where none is published.
    """

    url: str
    unpack: bool
    place: str
    bytes: int | None
    about_bytes: int | None
    hash: tuple[str, str] | None

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return self.url.partition("?")[0].rpartition("/")[2]


@dataclass(frozen=True)
class Licence:
    """identifier: SPDX. text: the file with the whole text. source: where the publisher says so."""

    identifier: str
    text: Path
    source: str


@dataclass(frozen=True)
class ManifestEntry:
    """One model.

    organs: which of the nine it finds; classes: how many structures in all. kind: what converts it, of KINDS;
    folders: how the paths of the folders end that are converted, in order; options: of the conversion.
    """

    name: str
    title: str
    architecture: str
    organs: tuple[str, ...]
    classes: int
    spacing_mm: float
    licence: Licence
    homepage: str
    citations: tuple[str, ...]
    sources: tuple[Source, ...]
    kind: str
    folders: tuple[str, ...]
    options: Mapping[str, str]

    @property
    def size_text(self) -> str:
        """ "135 MB", "about 135 MB", or "size unknown"."""
        if all(source.bytes is not None for source in self.sources):
            return f"{sum(source.bytes for source in self.sources) / 1e6:.0f} MB"
        sizes = [source.bytes or source.about_bytes for source in self.sources]
        if None in sizes:
            return "size unknown"
        return f"about {sum(sizes) / 1e6:.0f} MB"


def read_manifest(path: Path = RESOURCES / "manifest.json") -> dict[str, ManifestEntry]:
    """Name -> entry, in the file's order. Raises SegMateError that names the file and the entry."""
    try:
        document = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SegMateError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise SegMateError(f"{path} is not JSON ({error})") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise SegMateError(f'{path} is no list of models: expected "format": "{FORMAT}"')
    if document.get("version") != VERSION:
        raise SegMateError(
            f"{path} is of version {document.get('version')!r}, this SegMate reads {VERSION}; update SegMate"
        )
    models = document.get("models")
    if not isinstance(models, list):
        raise SegMateError(f'{path}: expected "models" to be a list')
    entries: dict[str, ManifestEntry] = {}
    for number, row in enumerate(models, 1):
        name = row.get("name") if isinstance(row, dict) else None
        where = f"{path}, {name if isinstance(name, str) else f'model {number}'}"
        try:
            entry = _entry(row, path.parent)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else error
            raise SegMateError(f"{where}: {reason}") from None
        if entry.name in entries:
            raise SegMateError(f"{where}: this name is there twice")
        entries[entry.name] = entry
    return entries


def checked_model_name(name: str) -> str:
    """The name, if it can be that of a file everywhere. Raises SegMateError."""
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise SegMateError(
            f'"{name}" cannot be the name of a model: expected letters, digits, ".", "_" and "-", at most'
            " 100; give another --name"
        )
    return name


def _entry(row: dict, folder: Path) -> ManifestEntry:
    """Raises KeyError, TypeError, ValueError or SegMateError for what is missing or wrong."""
    convert, licence = row["convert"], row["licence"]
    if convert["kind"] not in KINDS:
        raise ValueError(f'"kind" is {convert["kind"]!r}, expected one of {", ".join(KINDS)}')
    text = folder / _inside(licence["text"])
    if not text.is_file():
        raise ValueError(f"its licence's text {text} is missing")
    options = convert["options"]
    if not all(isinstance(word, str) for pair in options.items() for word in pair):
        raise ValueError('"options" must be texts')
    if not row["sources"]:
        raise ValueError('"sources" is empty')
    try:
        name = checked_model_name(row["name"])
    except SegMateError as error:
        raise ValueError(str(error)) from None
    return ManifestEntry(
        name=name,
        title=_text(row, "title"),
        architecture=_text(row, "architecture"),
        organs=tuple(str(organ) for organ in row["organs"]),
        classes=_count(row["classes"], "classes"),
        spacing_mm=float(row["spacing_mm"]),
        licence=Licence(_text(licence, "identifier"), text, _text(licence, "source")),
        homepage=_text(row, "homepage"),
        citations=tuple(str(line) for line in row["citations"]),
        sources=tuple(_source(source) for source in row["sources"]),
        kind=convert["kind"],
        folders=tuple(_inside(place) for place in convert["folders"]),
        options=dict(options),
    )


def _source(row: dict) -> Source:
    url = _text(row, "url")
    if not url.startswith(("https://", "http://localhost", "http://127.0.0.1")):
        raise ValueError(f'the address {url} does not begin with "https://"')
    digest = None
    if row["hash"] is not None:
        ((algorithm, digits),) = row["hash"].items()
        if HASH_DIGITS.get(algorithm) != len(digits) or not re.fullmatch("[0-9a-f]+", digits):
            raise ValueError(f"the hash of {url} is none of {', '.join(HASH_DIGITS)} in lower-case digits")
        digest = (algorithm, digits)
    sizes = [row[key] if row[key] is None else _count(row[key], key) for key in ("bytes", "about_bytes")]
    if not isinstance(row["unpack"], bool):
        raise ValueError(f'"unpack" of {url} must be true or false')
    return Source(url, row["unpack"], _inside(row["place"]), *sizes, digest)


def _text(row: dict, key: str) -> str:
    if not isinstance(row[key], str) or not row[key]:
        raise ValueError(f'"{key}" must be a text')
    return row[key]


def _count(value: object, key: str) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f'"{key}" must be a whole number above 0')
    return value


def _inside(place: str) -> str:
    """A relative path with slashes that does not leave its folder."""
    path = PurePosixPath(place)
    if path.is_absolute() or ".." in path.parts or "\\" in place or ":" in place:
        raise ValueError(f'the path "{place}" leaves its folder')
    return place
