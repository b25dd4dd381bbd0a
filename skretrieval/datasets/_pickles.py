"""Ground-truth pickles read without running anything: plain containers and numpy arrays, nothing else.

The format is interpreted here, operation by operation: no unpickler runs, no function that a pickle names is called,
and what is made is counted as it is made.
"""

from __future__ import annotations

import os
import pickletools
import re
from pathlib import Path
from typing import Any

import numpy as np

_MAX_BYTES = 64 << 20
_MAX_OPERATIONS = 2_000_000
_MAX_DEPTH = 32
_SIMPLE_TYPE = re.compile(r"[<>=|]?([biuf](1|2|4|8)|[SU]\d{1,4}|O(4|8)?)$")
_TEXTS_AND_NUMBERS = frozenset(
    {
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
    }
    | {
        "SHORT_BINSTRING",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "BINBYTES",
        "SHORT_BINBYTES",
    }
    | {"BINBYTES8", "BYTEARRAY8"}
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "LIST": list, "DICT": dict}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Named:
    """Stands for a function or a type that a pickle names, and for an array until its values come."""

    def __init__(self, kind: str, code: str = "") -> None:
        self.kind, self.code = kind, code
        self.order: Any = None
        self.value: Any = None


_NAMES = {
    ("numpy", "dtype"): "type",
    ("numpy", "ndarray"): "ndarray",
    ("_codecs", "encode"): "encode",
    ("__builtin__", "bytes"): "bytes",
    ("builtins", "bytes"): "bytes",
}
for _core in ("numpy.core", "numpy._core"):  # as numpy 1 and numpy 2 call it
    _NAMES[f"{_core}.multiarray", "_reconstruct"] = "reconstruct"
    _NAMES[f"{_core}.multiarray", "scalar"] = "scalar"
    _NAMES[f"{_core}.numeric", "_frombuffer"] = "frombuffer"


class _Interpreter:
    """Does what a pickle says, for the operations that plain containers and numpy's arrays take."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.room = len(
            data
        )  # bytes that may be copied: what a pickle writes once is never more than its size

    def run(self) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(self.data)):
            if count >= _MAX_OPERATIONS:
                raise ValueError(f"it has more than {_MAX_OPERATIONS:,} operations.")
            if opcode.name == "STOP":
                (result,) = self.taken(1)
                return _checked(result)
            self.do(opcode.name, argument)
        raise ValueError("it is damaged: it has no end.")

    def do(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _TEXTS_AND_NUMBERS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            place = len(self.memo) if argument is None else int(argument)
            if place > len(self.data):
                raise ValueError("it is damaged: a memo index exceeds its size.")
            self.memo[place] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            found = self.memo[int(argument)]
            stack.append(found.value if isinstance(found, _Named) and found.value is not None else found)
        elif name in _EMPTY:
            items = [] if name.startswith("EMPTY") else self.marked()
            stack.append(_EMPTY[name]())
            self.extend(items)
        elif name in ("APPENDS", "SETITEMS"):
            self.extend(self.marked())
        elif name in ("APPEND", "SETITEM"):
            self.extend(self.taken(1 if name == "APPEND" else 2))
        elif name == "TUPLE":
            items = self.marked()
            stack.append(tuple(items))
        elif name in _TUPLES:
            items = self.taken(_TUPLES[name])
            stack.append(tuple(items))
        elif name == "POP_MARK" or (name == "POP" and self.marks[-1:] == [len(stack)]):
            self.marked()
        elif name == "POP":
            self.taken(1)
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "GLOBAL":
            stack.append(_named(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            items = self.taken(2)
            stack.append(_named(*items))
        elif name in ("REDUCE", "BUILD"):
            thing, value = self.taken(2)
            stack.append(self.called(thing, value) if name == "REDUCE" else self.built(thing, value))
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"it has the operation {name}.")

    def taken(self, count: int) -> list[Any]:
        """Take the topmost things, the deepest first."""
        start = len(self.stack) - count
        if start < (self.marks[-1] if self.marks else 0):
            raise ValueError("it is damaged: it takes more than there is.")
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def marked(self) -> list[Any]:
        """Take what lies above the last mark, and the mark."""
        items = self.taken(len(self.stack) - self.marks[-1])
        self.marks.pop()
        return items

    def extend(self, items: list[Any]) -> None:
        """Put things into the container on top; keys are texts, whose hashes nobody can foresee."""
        target = self.stack[-1]
        if type(target) is list:
            target += items
        elif type(target) is dict and len(items) % 2 == 0:
            kinds = {type(key).__name__ for key in items[::2] if not isinstance(key, str | bytes)}
            if kinds:
                raise ValueError(f"a {max(kinds)} is the key of a dict; only texts may be.")
            target.update(zip(items[::2], items[1::2], strict=True))
        else:
            raise ValueError(f"it is damaged: it puts something into a {type(target).__name__}.")

    def called(self, function: Any, arguments: Any) -> Any:
        """Return what a call that numpy's pickles make would return."""
        kind = function.kind if isinstance(function, _Named) and isinstance(arguments, tuple) else "nothing"
        if kind == "type":
            code = arguments[0]
            if not isinstance(code, str) or not _SIMPLE_TYPE.match(code):
                raise ValueError(f"arrays of type {str(code)[:40]!r} are not read.")
            return _Named("unordered", code.lstrip("<>=|"))
        if kind == "reconstruct":
            return _Named("array")
        if kind == "frombuffer":
            raw, code, shape, order = arguments
            return self.values(code, raw).reshape(shape, order="F" if order == "F" else "C")
        if kind == "scalar":
            code, raw = arguments if len(arguments) == 2 else (*arguments, None)
            value = self.values(code, raw)[0]
            self.make(value.nbytes)
            return value.item()
        if kind == "encode":
            text, encoding = arguments if len(arguments) == 2 else (*arguments, "latin1")
            if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
                raise ValueError(f"text in the encoding {str(encoding)[:40]!r} is not read.")
            self.make(len(text))
            return text.encode("latin1")
        if kind == "bytes" and not arguments:  # the empty ones, which protocols before 3 write as a call
            return b""
        made = {"bytes": "bytes", "ndarray": "an array"}.get(kind, "something")
        raise ValueError(f"it makes {made} in a way that numpy's and Python's pickles don't.")

    def built(self, thing: Any, state: Any) -> Any:
        """Give a type its byte order, or an array its values."""
        kind = thing.kind if isinstance(thing, _Named) else None
        if kind == "unordered":
            thing.order = state[1] if isinstance(state, tuple) and len(state) >= 2 else None
            if thing.order not in ("<", ">", "=", "|") or any(part is not None for part in state[2:5]):
                raise ValueError("structured array types are not read.")
            thing.kind = "ordered"
            return thing
        if kind != "array":
            raise ValueError("it gives a state to a function or a container.")
        _, shape, code, fortran, raw = state
        if isinstance(code, _Named) and code.kind == "ordered" and code.code.startswith("O"):
            if type(raw) is not list:
                raise ValueError("an array of objects has no list of them.")
            thing.value = raw
        else:
            thing.value = self.values(code, raw).reshape(shape, order="F" if fortran else "C")
        return thing.value

    def values(self, code: Any, raw: Any) -> np.ndarray:
        if not isinstance(code, _Named) or code.kind != "ordered":
            raise ValueError("an array has no type.")
        if isinstance(raw, str):  # written by Python 2
            self.make(len(raw))
            raw = raw.encode("latin1")
        if code.code.startswith("O") or not isinstance(raw, bytes | bytearray):
            raise ValueError("an array of numbers has no bytes.")
        return np.frombuffer(raw, dtype=np.dtype(code.code).newbyteorder(code.order))

    def make(self, n_bytes: int) -> None:
        self.room -= n_bytes
        if self.room < 0:
            raise ValueError("it makes more than it holds: the same text over and over.")


def _named(module: Any, name: Any) -> _Named:
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("it is damaged: it names a thing by what is no text.")
    if (module, name) not in _NAMES:
        raise ValueError(
            f"it names the global {module[:40]}.{name[:40]}; only lists, dicts, tuples, strings, numbers and numpy "
            "arrays are read."
        )
    return _Named(_NAMES[module, name])


def _checked(content: Any) -> Any:
    """Return the content of a pickle, if it is plain throughout. Shared parts are looked at once."""
    done: set[int] = set()
    above: set[int] = set()

    def check(thing: Any) -> None:
        if thing is None or isinstance(thing, bool | int | float | str | bytes | np.ndarray):
            return
        if not isinstance(thing, list | tuple | dict):
            raise ValueError(
                f"it holds a {type(thing).__name__.strip('_')} that is neither container nor array."
            )
        if id(thing) in above:
            raise ValueError("it contains itself.")
        if id(thing) in done:
            return
        if len(above) > _MAX_DEPTH:
            raise ValueError(f"it is nested more than {_MAX_DEPTH} deep.")
        above.add(id(thing))
        for part in thing.values() if isinstance(thing, dict) else thing:
            check(part)
        above.remove(id(thing))
        done.add(id(thing))

    check(content)
    return content


def load_plain_pickle(path: str | os.PathLike) -> Any:
    """Read a pickle of plain containers and numpy arrays, without running anything that it names.

    Parameters
    ----------
    path : path
        The file. Pickles of Python 2 and 3, of numpy 1 and 2 and of every protocol are read.

    Returns
    -------
    content : object
        Dicts (whose keys are texts), lists, tuples, strings, bytes, numbers and arrays. Arrays of objects
        become lists.

    Raises
    ------
    ValueError
        If it names anything else, is damaged, has more than 64 MiB or 2,000,000 operations, or would become
        much more than it is. The message names the file and the global.
    """
    path = Path(path)
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise ValueError(f"{path} is not read: it has {size:,} bytes, the limit is {_MAX_BYTES:,}.")
    data = path.read_bytes()
    try:
        return _Interpreter(data).run()
    except Exception as error:  # numpy and pickletools raise many kinds about damaged bytes
        reason = str(error).removesuffix(".") or type(error).__name__
        raise ValueError(f"{path} is not read as ground truth: {reason}.") from error
