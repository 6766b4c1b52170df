"""A file of torch.save (.pth, .pt) read without torch and without unpickling: values, and tensors on demand.

Takes a path, gives dictionaries, lists, texts and numbers in which tensors are StoredTensors, known by type,
shape and place; only those that are asked for are read, so that an optimiser's state beside the weights costs
nothing. The file is a ZIP whose entries are not compressed: one pickle, read by pickle_data, and one entry
for each storage (format: PyTorch's notes "Serialization semantics"; names and their order from such files).
A pickle that names anything but tensors and a short list of harmless values is refused. Files of nnU-Net, of
MONAI and of the original SegMate project are all read this way.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from SegMateCore.errors import SegMateError
from SegMateCore.json_entries import short
from SegMateCore.pickle_data import BadPickle, Call, Global, UnknownName, checked_key, read_pickle

LARGEST_PICKLE_BYTES = 256 * 2**20
# What several GPUs put before the name of every weight.
PARALLEL_PREFIX = "module."
_STORAGES = {
    "FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "BFloat16Storage": "bfloat16",
    "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1",
    "BoolStorage": "?",
}  # fmt: skip
_DTYPES = (
    "float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool",
)  # fmt: skip
# What checkpoints have beside tensors. Only named here, never built: most of it nobody needs.
_HARMLESS = {
    "torch": ("device", "Size", *_DTYPES, *_STORAGES),
    "torch._utils": ("_rebuild_tensor_v2", "_rebuild_parameter"),
    "collections": ("OrderedDict", "defaultdict"),
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("scalar", "_reconstruct"),
    "numpy._core.multiarray": ("scalar", "_reconstruct"),
    "numpy._core.numeric": ("_frombuffer",),
    "numpy.core.numeric": ("_frombuffer",),
    "_codecs": ("encode",),
    "pathlib": ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "pathlib._local": ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"),
    "datetime": ("datetime", "date", "timedelta", "timezone"),
    "builtins": ("list", "dict", "set", "frozenset", "int", "float", "complex", "slice", "range"),
    "__builtin__": ("list", "dict", "set", "frozenset", "int", "float", "complex", "slice", "xrange"),
}
_NUMPY_SCALARS = "biuf"
# No weight has more of either; numpy has limits of its own.
_MOST_AXES, _LONGEST_AXIS = 16, 2**40


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in its file.

    storage: an entry's name; dtype: numpy's code, or "bfloat16"; offset, strides: in elements.
    """

    storage: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Storage:
    entry: str
    dtype: str
    count: int


class TorchArchive:
    """An open file of torch.save; a context manager. content: the value that was saved.

    Raises SegMateError: not readable, damaged, compressed, the format before torch 1.6, or more than data.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self._zip = zipfile.ZipFile(self.path)
        except OSError as error:
            raise SegMateError(f"cannot read {self.path}: {error.strerror or error}") from None
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            raise SegMateError(
                f"{self.path} is refused: not a whole file as torch.save writes since version 1.6. Copy or "
                "download it again"
            ) from None
        try:
            self._entries = self._checked_entries()
            self._prefix = self._only_pickle().removesuffix("data.pkl")
            self._big_endian = self._read_small("byteorder", b"little") == b"big"
            self._last: tuple[str, bytes] | None = None
            self.content = self._read_content()
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> TorchArchive:
        return self

    def __exit__(self, *_) -> None:
        self._zip.close()

    def named_tensors(self, containers: tuple[str, ...]) -> dict[str, StoredTensor]:
        """The tensors by key, out of the first of `containers` that is there, and without "module.".

        Raises SegMateError that begins in small letters and names no file.
        """
        content = self.content
        if isinstance(content, Mapping):
            content = next((content[name] for name in containers if name in content), content)
        if not isinstance(content, Mapping) or not content:
            raise SegMateError(f"it holds a {type(content).__name__}, not named weights")
        for key, tensor in content.items():
            if not isinstance(key, str) or not isinstance(tensor, StoredTensor):
                raise SegMateError(f"its entry {short(key)} is a {type(tensor).__name__}, not a weight")
        wrapped = all(key.startswith(PARALLEL_PREFIX) for key in content)
        return {key.removeprefix(PARALLEL_PREFIX) if wrapped else key: content[key] for key in content}

    def array(self, tensor: StoredTensor) -> np.ndarray:
        """The tensor's numbers in C order; bfloat16 as float32. Raises SegMateError where it is damaged."""
        # Tensors that share a storage follow each other in a state dict.
        if self._last is None or self._last[0] != tensor.storage:
            self._last = tensor.storage, self._read(self._entries[tensor.storage])
        order = ">" if self._big_endian else "<"
        code = "u2" if tensor.dtype == "bfloat16" else tensor.dtype
        values = np.frombuffer(self._last[1], np.dtype(code).newbyteorder(order))
        start, strides = values[tensor.offset :], [stride * values.itemsize for stride in tensor.strides]
        view = np.lib.stride_tricks.as_strided(start, tensor.shape, strides, writeable=False)
        if tensor.dtype == "bfloat16":
            # A typed shift: a number without axes would become int64 with numpy 1.
            return np.asarray(view.astype(np.uint32, order="C") << np.uint32(16)).view(np.float32)
        return np.array(view, dtype=np.dtype(code), order="C")

    def _checked_entries(self) -> dict[str, zipfile.ZipInfo]:
        entries = {}
        for entry in self._zip.infolist():
            parts = entry.filename.replace("\\", "/").split("/")
            if parts[1:2] == ["code"]:
                raise self._refused(
                    "a TorchScript archive, which is code beside weights. Give the file of weights that it"
                    " was made from (a MONAI bundle has it at models/model.pt)"
                )
            if ".." in parts or parts[0] == "" or ":" in parts[0]:
                raise self._refused(f"its entry {entry.filename!r} points out of the archive")
            if entry.filename in entries:
                raise self._refused(f"it has the entry {entry.filename!r} twice")
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise self._refused(f"its entry {entry.filename!r} is compressed, as torch.save never does")
            entries[entry.filename] = entry
        return entries

    def _only_pickle(self) -> str:
        names = [name for name in self._entries if name.split("/")[1:] == ["data.pkl"]]
        if len(names) != 1:
            raise self._refused(f"it has {len(names)} entries NAME/data.pkl, expected one, as of torch.save")
        if self._entries[names[0]].file_size > LARGEST_PICKLE_BYTES:
            raise self._refused(f"its data.pkl has more than {LARGEST_PICKLE_BYTES} bytes")
        return names[0]

    def _read_small(self, name: str, default: bytes) -> bytes:
        entry = self._entries.get(self._prefix + name)
        return default if entry is None or entry.file_size > 100 else self._read(entry).strip()

    def _read(self, entry: zipfile.ZipInfo) -> bytes:
        """Verifies the checksum."""
        try:
            return self._zip.read(entry)
        # ValueError: places beyond any file, and names that are no text.
        except (OSError, RuntimeError, EOFError, ValueError, OverflowError, zipfile.BadZipFile) as error:
            raise SegMateError(
                f"{self.path} is damaged in {entry.filename} ({error}); copy or download it again"
            ) from None

    def _read_content(self) -> object:
        data = self._read(self._entries[self._prefix + "data.pkl"])
        try:
            return read_pickle(data, _is_harmless, _called, self._storage)
        except UnknownName as error:
            raise self._refused(
                f"it holds more than weights ({error.name}), and loading that would run code. Ask its author "
                "for a file without it"
            ) from None
        except (BadPickle, MemoryError, RecursionError) as error:
            raise self._refused(f"its pickle is damaged ({error}). Copy or download it again") from None

    def _refused(self, reason: str) -> SegMateError:
        return SegMateError(f"{self.path} is refused: {reason}")

    def _storage(self, identity: object) -> _Storage:
        """From the persistent id ("storage", kind, entry, device, number of elements)."""
        if not isinstance(identity, tuple) or len(identity) != 5 or identity[0] != "storage":
            raise BadPickle("a storage of an unknown form")
        kind, key, count = identity[1], identity[2], identity[4]
        if not isinstance(kind, Global) or kind.name not in _STORAGES or not isinstance(key, str):
            raise BadPickle("a storage of an unknown type")
        storage = _Storage(f"{self._prefix}data/{key}", _STORAGES[kind.name], count)
        size = 2 if storage.dtype == "bfloat16" else np.dtype(storage.dtype).itemsize
        entry = self._entries.get(storage.entry)
        if entry is None or type(count) is not int or entry.file_size != count * size:
            raise BadPickle(f"the storage {key} is missing or not as large as it should be")
        return storage


def _is_harmless(name: Global) -> bool:
    return name.name in _HARMLESS.get(name.module, ())


def _called(function: Global, arguments: tuple) -> object:
    """The value of a call, where it is data; else the Call."""
    if function.name == "_rebuild_tensor_v2":
        return _tensor(*arguments[:4])
    if function.name == "_rebuild_parameter":
        return arguments[0]
    if function.name == "OrderedDict":
        return {checked_key(key): value for key, value in (arguments[0] if arguments else ())}
    if function.name == "encode":
        return arguments[0].encode("latin1")
    if function.name == "scalar":
        return _number(function, arguments)
    return Call(function, arguments)


def _tensor(storage: object, offset: object, shape: object, strides: object) -> StoredTensor:
    """Checked: the tensor lies in its storage, and is not larger than it."""
    if not isinstance(storage, _Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise BadPickle("a tensor of an unknown form")
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or any(type(number) is not int or number < 0 for number in numbers):
        raise BadPickle("a tensor of an impossible shape")
    if len(shape) > _MOST_AXES or max(shape, default=0) > _LONGEST_AXIS:
        raise BadPickle("a tensor of an impossible shape")
    # Along an axis of one element there is no step; files may say any number there.
    strides = tuple(stride if length > 1 else 0 for length, stride in zip(shape, strides))
    reach = offset + sum((length - 1) * stride for length, stride in zip(shape, strides))
    if math.prod(shape) > storage.count or (math.prod(shape) and reach >= storage.count):
        raise BadPickle("a tensor that is larger than its storage")
    return StoredTensor(storage.entry, storage.dtype, offset, shape, strides)


def _number(function: Global, arguments: tuple) -> object:
    """A numpy scalar as a Python number; one of another type stays a Call."""
    kind, data = arguments
    code = kind.arguments[0] if isinstance(kind, Call) and kind.arguments else None
    simple = isinstance(code, str) and len(code) == 2 and code[0] in _NUMPY_SCALARS and code[1] in "1248"
    if not simple or not isinstance(data, bytes):
        return Call(function, arguments)
    order = kind.state[1] if isinstance(kind.state, tuple) and len(kind.state) > 1 else "<"
    (number,) = np.frombuffer(data, np.dtype(code).newbyteorder(order if order in ("<", ">") else "="))
    return number.item()
