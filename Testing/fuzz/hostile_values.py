"""Values that files written to do harm, or by mistake, put where a number, a text or an entry belongs.

Takes a random.Random, gives JSON-able values, texts and whole numbers. DEEP stands for a nesting that
json.dumps itself could not write; as_json puts it in its place.
"""

from __future__ import annotations

import json
import random

DEEP = "@deep@"
_DEPTH = 100_000
INTEGERS = (
    0, 1, -1, 2, 3, 7, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
    2**53 + 1, 2**63 - 1, -(2**63), 2**64, 10**12, 10**18, 10**400,
)  # fmt: skip
_FLOATS = (0.0, -0.0, 0.5, 1e-300, 1e-9, 1e9, 1e300, 1e308, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    "", " ", ".", "..", "../../../escaped", "/etc/passwd", "/dev/zero", "C:\\windows\\x", "a/b", "a\\b", "\0",
    "a\0b", "\n", "\r\nx", "\ud800", "é" * 300, "x" * 100_000, "%s%n", "{}", "${x}", "__import__('os')",
    "1e999", "nan", "9" * 5000, "@x", "$import os", "con", "-1", "true", "left lung", "file:///etc/passwd",
    "http://127.0.0.1:9/x", "<script>", "=1+1",
)  # fmt: skip


def integer(rng: random.Random, largest_bytes: int | None = None) -> int:
    """A whole number near a border; with largest_bytes one that fits them, unsigned."""
    value = rng.choice(INTEGERS) + rng.choice((0, 0, 0, 1, -1))
    return value if largest_bytes is None else value % 256**largest_bytes


def value(rng: random.Random) -> object:
    """Any value of JSON."""
    kind = rng.randrange(10)
    if kind < 3:
        return rng.choice(INTEGERS)
    if kind < 5:
        return rng.choice(_FLOATS)
    if kind < 7:
        return rng.choice(TEXTS)
    choices = (None, True, False, [], {}, [[]], [0] * 3, [1] * 100_000, {"": {}}, DEEP)
    return rng.choice(choices)


def changed(document: object, rng: random.Random) -> object:
    """The JSON document with one value, key or entry somewhere changed, removed, doubled or moved."""
    if isinstance(document, dict) and document and rng.random() < 0.9:
        key = rng.choice(list(document))
        what = rng.randrange(12)
        if what == 0:
            return {k: v for k, v in document.items() if k != key}
        if what == 1:
            return {(rng.choice(TEXTS) if k == key else k): v for k, v in document.items()}
        if what == 2:
            return {**document, rng.choice(TEXTS): value(rng)}
        if what == 3:
            return {**document, key: document[rng.choice(list(document))]}
        return {**document, key: changed(document[key], rng)}
    if isinstance(document, list) and document and rng.random() < 0.9:
        place = rng.randrange(len(document))
        what = rng.randrange(10)
        if what == 0:
            return document[:place] + document[place + 1 :]
        if what == 1:
            return document[: place + 1] + document[place:]
        if what == 2:
            return [*document, value(rng)]
        return [*document[:place], changed(document[place], rng), *document[place + 1 :]]
    if type(document) is int and rng.random() < 0.5:
        return integer(rng)
    return value(rng)


def as_json(document: object) -> bytes:
    """The JSON text, lone surrogates escaped, NaN as Python writes it, DEEP as a deep nesting."""
    return json.dumps(document).replace(f'"{DEEP}"', "[" * _DEPTH + "]" * _DEPTH).encode()
