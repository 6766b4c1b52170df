"""Changes to files that keep enough of their structure to reach the code behind the first check.

Takes a tree (name -> content of each file of one input) and a random.Random, gives another. What is done to a
file follows from its suffix: fields of headers at their offsets, entries of JSON, lines of texts, entries
of ZIP files with right checksums, the inside of gzip, fields of Protocol Buffers; and bytes of any.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable

import hostile_values

Tree = dict[str, bytes]
Change = Callable[[bytes, random.Random], bytes]
# Offset and struct code of the fields of a NIfTI-1 header (nifti1.h) that decide what is read and where.
_NIFTI_FIELDS = (
    (0, "i"), *((offset, "h") for offset in range(40, 56, 2)), (70, "h"), (72, "h"),
    *((offset, "f") for offset in range(76, 108, 4)), (108, "f"), (112, "f"), (116, "f"), (123, "b"),
    (252, "h"), (254, "h"), *((offset, "f") for offset in range(256, 328, 4)), (344, "i"), (348, "i"),
    (352, "i"), (356, "i"),
)  # fmt: skip
_BROKEN = (
    ValueError, TypeError, AttributeError, LookupError, EOFError, OSError, struct.error, zlib.error,
    zipfile.BadZipFile, RecursionError, RuntimeError,
)  # fmt: skip
_FLOATS = (0.0, -1.0, 1e-30, 1e9, 1e20, 3e38, float("inf"), float("nan"), 352.0, 348.0, 2147483648.0)
_TOML_VALUES = (
    "[" * 3000, "{a=" * 3000, "1e999", "9" * 5000, "inf", "nan", "-1", "0", "{}", "[]", "[[]]", "true",
    "10000000000000", '""', '"../x"',
)  # fmt: skip
_NRRD_LINES = (
    "sizes: 1000000 1000000 1", "sizes: 4294967296 4294967296 1", "sizes: -1 2 3", "sizes: 0 0 0",
    "dimension: 0", "dimension: 999999999", "type: block", "type: double", "block size: 999999999999",
    "encoding: bz2",
    "encoding: ascii", "encoding: hex", "encoding: gzip", "encoding: raw", "line skip: 999999999999",
    "line skip: -5", "byte skip: -1", "byte skip: 999999999999", "byte skip: -999999999",
    "data file: /etc/passwd", "data file: ../secret.raw", "data file: /dev/zero", "data file: .",
    "data file: x%d.raw 0 999999999999 1", "data file: x%d.raw 0 5 0", "data file: LIST\n../secret.raw",
    "space: scanner-xyz", "space dimension: 99999999", "space directions: none none none",
    "space directions: (nan,0,0) (0,inf,0) (0,0,1)", "space origin: (1e999,0,0)", "endian: middle",
    "kinds: vector", "space units: \"m\" \"m\" \"m\"", "a:=" + "x" * 200_000, "segmate:=" + "[" * 100_000,
    "Segment0_ID:=x", "Segment0_LabelValue:=²",
    "Segment0_ID:=x\nSegment0_Tags:=SegMate.document:" + "[" * 100_000 + "|",
)  # fmt: skip


def mutated(tree: Tree, others: list[Tree], rng: random.Random) -> Tree:
    """`tree` with one to four changes; others: of the same target, to splice with."""
    tree = dict(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        name = rng.choice(sorted(tree))
        if len(tree) > 1 and rng.random() < 0.03:
            del tree[name]
            continue
        other = rng.choice(others)
        partner = other[rng.choice(sorted(other))]
        tree[name] = _change(name)(tree[name], rng, partner)
    return tree


def _change(name: str) -> Callable[[bytes, random.Random, bytes], bytes]:
    by_suffix = next((made for suffix, made in _STRUCTURED.items() if name.endswith(suffix)), None)

    def change(content: bytes, rng: random.Random, partner: bytes) -> bytes:
        if by_suffix is not None and rng.random() < 0.75:
            # A file that earlier changes have broken no longer has its structure.
            try:
                return by_suffix(content, rng)
            except _BROKEN:
                pass
        return any_bytes(content, rng, partner)

    return change


def any_bytes(content: bytes, rng: random.Random, partner: bytes = b"") -> bytes:
    """Bytes flipped, overwritten, cut, repeated, spliced."""
    data = bytearray(content or b"\0")
    at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 512))
    what = rng.randrange(8)
    if what == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif what == 1:
        for _ in range(rng.randint(1, 16)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif what == 2:
        size = rng.choice((1, 2, 4, 8))
        order = rng.choice(("little", "big"))
        data[at : at + size] = hostile_values.integer(rng, size).to_bytes(size, order)
    elif what == 3:
        del data[at:]
    elif what == 4:
        del data[at : at + rng.choice((1, 4, 64, 1024))]
    elif what == 5:
        data[at:at] = data[at : at + rng.choice((1, 8, 256))] * rng.choice((1, 2, 100))
    elif what == 6 and partner:
        data[at:] = partner[rng.randrange(len(partner)) :]
    else:
        data[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 4, 32))))
    return bytes(data)


def nifti(content: bytes, rng: random.Random) -> bytes:
    data, order = bytearray(content), rng.choice("<<<<>")
    for _ in range(rng.choice((1, 1, 2, 3))):
        offset, code = rng.choice(_NIFTI_FIELDS)
        if code == "f":
            number = rng.choice(_FLOATS)
        else:
            number = hostile_values.integer(rng, struct.calcsize(code))
            number -= (number >> (8 * struct.calcsize(code) - 1)) << 8 * struct.calcsize(code)
        struct.pack_into(order + code, data, offset, number)
    return bytes(data)


def gzipped(inner: Change) -> Change:
    def change(content: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.02:
            # A bomb: far more zeros behind the file than it announces.
            return gzip.compress(gzip.decompress(content) + bytes(rng.choice((1 << 20, 1 << 27))), 1, mtime=0)
        return gzip.compress(inner(gzip.decompress(content), rng), 1, mtime=0)

    return change


def nrrd(content: bytes, rng: random.Random) -> bytes:
    head, gap, data = content.partition(b"\n\n")
    lines = head.decode("latin1").split("\n")
    at = rng.randrange(1, len(lines))
    what = rng.randrange(6)
    if what == 0:
        del lines[at]
    elif what == 1:
        lines.insert(at, lines[rng.randrange(1, len(lines))])
    elif what == 2:
        lines[at] = text_line(lines[at], rng)
    elif what == 3:
        field = rng.choice(_NRRD_LINES)
        key = field.partition(":")[0]
        lines = [line for line in lines if line.partition(":")[0] != key] + [field]
    else:
        lines.insert(at, rng.choice(_NRRD_LINES))
    if rng.random() < 0.1:
        data = any_bytes(data, rng)
    return "\n".join(lines).encode("latin1", "replace") + gap + data


def text_line(line: str, rng: random.Random) -> str:
    """One number or word of a line replaced."""
    words = line.split(" ")
    words[rng.randrange(len(words))] = str(rng.choice((
        *hostile_values.INTEGERS[:-1], *hostile_values.TEXTS, "1e999", "nan", "[" * 5000, "{" * 5000,
    )))
    return " ".join(words)


def lines(content: bytes, rng: random.Random) -> bytes:
    rows = content.decode("utf-8", "replace").split("\n")
    at = rng.randrange(len(rows))
    what = rng.randrange(4)
    if what == 0:
        del rows[at]
    elif what == 1:
        rows.insert(at, rows[rng.randrange(len(rows))])
    elif what == 2:
        rows[at] = f"{rows[at].partition('=')[0]}= {rng.choice(_TOML_VALUES)}"
    else:
        rows[at] = text_line(rows[at], rng)
    return "\n".join(rows).encode("utf-8", "surrogatepass")


def json_document(content: bytes, rng: random.Random) -> bytes:
    return hostile_values.as_json(hostile_values.changed(json.loads(content), rng))


def json_lines(content: bytes, rng: random.Random) -> bytes:
    rows = content.splitlines()
    at = rng.randrange(len(rows))
    rows[at] = json_document(rows[at], rng)
    return b"\n".join(rows) + b"\n"


def safetensors(content: bytes, rng: random.Random) -> bytes:
    """The header's JSON, or the checkpoint's document in it; the length before it right, or not."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    texts = header.get("__metadata__", {})
    if texts and rng.random() < 0.6:
        key = rng.choice(sorted(texts))
        texts[key] = json_document(texts[key].encode(), rng).decode()
    elif rng.random() < 0.5 and len(header) > 1:
        key = rng.choice(sorted(set(header) - {"__metadata__"}))
        header[key] = hostile_values.changed(header[key], rng)
    else:
        header = hostile_values.changed(header, rng)
    text = hostile_values.as_json(header)
    said = len(text) if rng.random() < 0.95 else hostile_values.integer(rng, 8)
    return said.to_bytes(8, "little") + text + content[8 + length :]


def onnx_model(content: bytes, rng: random.Random) -> bytes:
    """A field of the graph, or the checkpoint's document in the metadata."""
    import onnx

    try:
        model = onnx.ModelProto.FromString(content)
    except Exception as error:  # protobuf's own class is private
        raise ValueError(str(error)) from None
    if model.metadata_props and rng.random() < 0.5:
        entry = rng.choice(list(model.metadata_props))
        entry.value = json_document(entry.value.encode(), rng).decode()
        return model.SerializeToString()
    graph = model.graph
    what = rng.randrange(7)
    if what == 0:
        tensor = rng.choice(list(graph.initializer))
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
        place = rng.choice(("../secret.raw", "/etc/passwd", "secret.raw", "/dev/zero"))
        offset = str(hostile_values.integer(rng, 8))
        for key, text in (("location", place), ("offset", offset), ("length", "64")):
            tensor.external_data.add(key=key, value=text)
    elif what == 1:
        tensor = rng.choice(list(graph.initializer))
        if not tensor.dims:
            tensor.dims.append(1)
        tensor.dims[rng.randrange(len(tensor.dims))] = hostile_values.integer(rng, 8) >> 1
    elif what == 2:
        rng.choice(list(graph.node)).op_type = rng.choice(
            ("Loop", "If", "Scan", "ConstantOfShape", "RandomNormal", "Expand", "Tile", "Range", "Nothing")
        )
    elif what == 3:
        rng.choice(list(graph.node)).domain = rng.choice(("com.microsoft", "ai.onnx.ml", "evil"))
    elif what == 4:
        node = rng.choice(list(graph.node))
        node.input[rng.randrange(len(node.input))] = rng.choice(list(graph.node)).output[0]
    elif what == 5:
        rng.choice(list(graph.initializer)).data_type = rng.randrange(25)
    else:
        model.opset_import[0].version = hostile_values.integer(rng, 8) >> 1
    return model.SerializeToString()


def archive(content: bytes, rng: random.Random) -> bytes:
    """An entry changed, renamed, doubled, packed; checksums right."""
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        entries = [(entry, opened.read(entry)) for entry in opened.infolist()]
    at = rng.randrange(len(entries))
    pickles = [index for index, (entry, _) in enumerate(entries) if entry.filename.endswith(".pkl")]
    if pickles and rng.random() < 0.6:
        at = pickles[0]
    entry, data = entries[at]
    what = rng.randrange(6)
    if what <= 2:
        entries[at] = (entry, any_bytes(data, rng, rng.choice(entries)[1]))
    elif what == 3:
        entry.filename = rng.choice(("../escaped", "/tmp/escaped", "a/../../b", "x" * 3000, "con", "a\\b"))
    elif what == 4:
        entries.append(entries[at])
    else:
        entries[at] = (entry, bytes(1 << 24))
        entry.compress_type = zipfile.ZIP_DEFLATED
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as made:
        warnings.simplefilter("ignore")  # of a name that is there twice, as is wanted
        for entry, data in entries:
            made.writestr(entry, data, entry.compress_type)
    return out.getvalue()


_STRUCTURED: dict[str, Change] = {
    ".nii.gz": gzipped(nifti),
    ".nii": nifti,
    ".nrrd": nrrd,
    ".nhdr": nrrd,
    ".safetensors": safetensors,
    ".onnx": onnx_model,
    ".pth": archive,
    ".pt": archive,
    ".zip": archive,
    ".jsonl": json_lines,
    ".json": json_document,
    ".toml": lines,
    ".csv": lines,
}
