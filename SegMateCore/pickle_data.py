"""The values in a pickle as plain data: an interpreter of its opcodes that can build nothing but data.

Takes the bytes, gives dictionaries, lists, tuples, texts, numbers; a class or function that the pickle names
becomes a Global, which is only compared, and a call of one becomes what the caller's `called` makes of it.
Nothing is imported and nothing of the pickle runs. A name that is not known is refused when it is met.
Opcodes: Python's pickletools, which also takes the bytes apart. Those that only make objects (INST, OBJ, EXT
and others) are refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field

_ENDS = ("PROTO", "FRAME", "STOP")
_PUSHED = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8", "STRING", "BINSTRING", "SHORT_BINSTRING",
))  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": set}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class BadPickle(ValueError):
    """The bytes are no whole pickle, or one that holds more than data."""


class UnknownName(BadPickle):
    """The pickle names a class or function that is not known: to build it would run code."""

    def __init__(self, name: str):
        super().__init__(name)
        self.name = name


@dataclass(frozen=True)
class Global:
    """A class or function that the pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(repr=False)
class Call:
    """A call that stays one: what was called, its arguments, and the state that was given to its result."""

    function: Global
    arguments: tuple
    state: object = None

    def __repr__(self) -> str:
        return f"<{self.function}>"


@dataclass
class _Machine:
    """The stack and memory of the pickle machine."""

    known: Callable[[Global], bool]
    called: Callable[[Global, tuple], object]
    stored: Callable[[object], object]
    stack: list = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memory: dict[int, object] = field(default_factory=dict)


def read_pickle(
    data: bytes,
    known: Callable[[Global], bool],
    called: Callable[[Global, tuple], object] = Call,
    stored: Callable[[object], object] = lambda identity: identity,
) -> object:
    """The value in `data`.

    known: whether a name may occur. called: the value of a call; a Call stands for an object that nobody
    needs. stored: the value of a persistent id. Raises UnknownName, and BadPickle for all other bytes that
    are no whole pickle of data.
    """
    machine = _Machine(known, called, stored)
    try:
        for opcode, argument, _ in pickletools.genops(data):
            _step(machine, opcode.name, argument)
        (value,) = machine.stack
    except BadPickle:
        raise
    # What damaged bytes do to a stack machine: too little on the stack, keys of a wrong kind.
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError) as error:
        raise BadPickle(f"{type(error).__name__}: {error}") from None
    return value


def _step(machine: _Machine, opcode: str, argument: object) -> None:
    stack = machine.stack
    if opcode in _PUSHED:
        stack.append(argument)
    elif opcode in ("BINPUT", "LONG_BINPUT", "PUT"):
        machine.memory[argument] = stack[-1]
    elif opcode == "MEMOIZE":
        machine.memory[len(machine.memory)] = stack[-1]
    elif opcode in ("BINGET", "LONG_BINGET", "GET"):
        stack.append(machine.memory[argument])
    elif opcode == "MARK":
        machine.marks.append(len(stack))
    elif opcode in _CONSTANTS:
        stack.append(_CONSTANTS[opcode])
    elif opcode in _EMPTY:
        stack.append(_EMPTY[opcode]())
    elif opcode in _TUPLES:
        stack.append(tuple(_popped(stack, _TUPLES[opcode])))
    elif opcode in _FROM_MARK:
        _FROM_MARK[opcode](stack, _since_mark(machine))
    elif opcode in _ON_STACK:
        _ON_STACK[opcode](stack)
    elif opcode == "GLOBAL":
        stack.append(_global(machine, *argument.split(" ", 1)))
    elif opcode == "STACK_GLOBAL":
        stack.append(_global(machine, *_popped(stack, 2)))
    elif opcode in ("REDUCE", "NEWOBJ"):
        stack.append(_call(machine, *_popped(stack, 2)))
    elif opcode == "BINPERSID":
        stack.append(machine.stored(stack.pop()))
    elif opcode not in _ENDS:
        raise BadPickle(f"the opcode {opcode}")


def _popped(stack: list, count: int) -> list:
    if len(stack) < count:
        raise BadPickle("too little on the stack")
    popped = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return popped


def _since_mark(machine: _Machine) -> list:
    start = machine.marks.pop()
    return _popped(machine.stack, len(machine.stack) - start)


def _global(machine: _Machine, module: object, name: object) -> Global:
    if not isinstance(module, str) or not isinstance(name, str):
        raise BadPickle("a name that is no text")
    found = Global(module, name)
    if not machine.known(found):
        raise UnknownName(str(found))
    return found


def _call(machine: _Machine, function: object, arguments: object) -> object:
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
        raise BadPickle("a call of what is no function")
    return machine.called(function, arguments)


def _build(stack: list) -> None:
    """State for the object below it; other objects than a Call are complete without theirs."""
    state = stack.pop()
    if isinstance(stack[-1], Call):
        stack[-1].state = state


def _set_items(stack: list, values: list) -> object:
    target = stack[-1]
    if len(values) % 2:
        raise BadPickle("a key without a value")
    if isinstance(target, dict):
        target.update(zip(map(checked_key, values[::2]), values[1::2]))
    elif not isinstance(target, Call):
        raise BadPickle("items for what is no dictionary")
    return target


def checked_key(value: object) -> object:
    """A key or member of a set, which may be hashed. Deeply nested tuples would exhaust the C stack."""
    entries = value if isinstance(value, tuple) else (value,)
    if not all(entry is None or isinstance(entry, (str, bytes, int, float)) for entry in entries):
        raise BadPickle("a key of a wrong kind")
    return value


def _append_all(stack: list, values: list) -> None:
    target = stack[-1]
    if isinstance(target, list):
        target.extend(values)
    elif not isinstance(target, Call):
        raise BadPickle("entries for what is no list")


def _set_item(stack: list) -> None:
    _set_items(stack, _popped(stack, 2))


def _append(stack: list) -> None:
    _append_all(stack, _popped(stack, 1))


_FROM_MARK = {
    "TUPLE": lambda stack, values: stack.append(tuple(values)),
    "LIST": lambda stack, values: stack.append(values),
    "DICT": lambda stack, values: stack.append(_set_items([{}], values)),
    "FROZENSET": lambda stack, values: stack.append(frozenset(map(checked_key, values))),
    "ADDITEMS": lambda stack, values: stack[-1].update(map(checked_key, values)),
    "SETITEMS": _set_items,
    "APPENDS": _append_all,
    "POP_MARK": lambda stack, values: None,
}
_ON_STACK = {
    "SETITEM": _set_item,
    "APPEND": _append,
    "BUILD": _build,
    "POP": lambda stack: stack.pop(),
    "DUP": lambda stack: stack.append(stack[-1]),
}
