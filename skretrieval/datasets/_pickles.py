"""Ground-truth pickles read without running anything: plain containers and numpy arrays, nothing else.

The format is interpreted with stand-ins: `numpy.dtype`, `numpy.ndarray` and the functions that numpy's pickles call
are replaced by classes of this module, which take bytes and checked type codes. No function that a pickle names is
ever called, and no state that it gives ever reaches numpy's own ``__setstate__``.
"""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from sklearn.utils import Bunch

_MAX_BYTES = 64 << 20
_MAX_DEPTH = 32
_SIMPLE_TYPE = re.compile(r"[<>=|]?([biuf](1|2|4|8)|[SU]\d{1,4}|O(4|8)?)$")
# Operations that numpy's pickles of plain containers never have: other classes, persistent ids, extensions, buffers.
_REFUSED = frozenset(
    {"PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"}
    | {"NEXT_BUFFER", "READONLY_BUFFER", "EMPTY_SET", "ADDITEMS", "FROZENSET"}
)


class _Type:
    """Stands for numpy.dtype: takes what its pickles give, and accepts numbers, strings and objects only."""

    def __init__(self, code: str, align: bool = False, copy: bool = False):
        if not isinstance(code, str) or not _SIMPLE_TYPE.match(code):
            raise ValueError(f"arrays of type {code!r} are not read.")
        self.code = code.lstrip("<>=|")
        self.order: Literal["<", ">", "=", "|"] = "="

    def __setstate__(self, state: tuple) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) >= 2 else None
        if order not in ("<", ">", "=", "|") or any(part is not None for part in state[2:5]):
            raise ValueError("structured array types are not read.")
        self.order = order

    @property
    def is_object(self) -> bool:
        return self.code.startswith("O")

    def dtype(self) -> np.dtype:
        return np.dtype(self.code).newbyteorder(self.order)

    def read(self, raw: Any) -> np.ndarray:
        if isinstance(raw, str):  # written by Python 2
            raw = raw.encode("latin1")
        if self.is_object or not isinstance(raw, bytes | bytearray):
            raise ValueError("an array of numbers has no bytes.")
        return np.frombuffer(bytes(raw), dtype=self.dtype())


class _Array:
    """Stands for numpy.ndarray."""

    def __init__(self) -> None:
        self.value: Any = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, raw = state
        if not isinstance(kind, _Type):
            raise ValueError("an array has no type.")
        if kind.is_object:
            if not isinstance(raw, list):
                raise ValueError("an array of objects has no list of them.")
            self.value = raw
        else:
            self.value = kind.read(raw).reshape(shape, order="F" if fortran else "C")


class _Global:
    """What a pickle gets for a name: it can be called, and nothing can be set on it."""

    __slots__ = ("_function",)

    def __init__(self, function: Any):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("it gives a state to a function.")


def _ndarray(*arguments: Any) -> Any:
    """Stand for numpy.ndarray where a pickle says which class to make; it never calls it itself."""
    raise ValueError("it makes an array in a way that numpy's pickles don't.")


def _reconstruct(mark: Any, shape: Any, code: Any) -> _Array:
    return _Array()


def _frombuffer(raw: Any, kind: _Type, shape: Any, order: str) -> _Array:
    array = _Array()
    array.value = kind.read(raw).reshape(shape, order="F" if order == "F" else "C")
    return array


def _scalar(kind: _Type, raw: Any = None) -> Any:
    return kind.read(raw)[0].item()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError(f"text in the encoding {encoding!r} is not read.")
    return text.encode("latin1")


def _bytes(*arguments: Any) -> bytes:
    """Make the empty bytes, which protocols before 3 write as a call."""
    if arguments:
        raise ValueError("it makes bytes in a way that Python's pickles don't.")
    return b""


_GLOBALS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _ndarray,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _bytes,
    ("builtins", "bytes"): _bytes,
}
for _core in ("numpy.core", "numpy._core"):  # as numpy 1 and numpy 2 call it
    _GLOBALS[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _GLOBALS[f"{_core}.multiarray", "scalar"] = _scalar
    _GLOBALS[f"{_core}.numeric", "_frombuffer"] = _frombuffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _Global(_GLOBALS[module, name])
        except KeyError:
            raise ValueError(
                f"it names the global {module}.{name}; only lists, dicts, tuples, strings, numbers and numpy arrays "
                "are read."
            ) from None


def _check_operations(data: bytes) -> None:
    """Follow what a pickle does, without doing it: what would crash the interpreter is refused.

    An index into the memo makes the unpickler reserve as many places: none can exceed the number of bytes. And
    tuples inside tuples are hashed by unguarded recursion when they are the key of a dict: no tuple may be one.
    """
    stack: list[bool | None] = []  # of each thing whether it is a tuple; None for marks
    memo: dict[int, bool | None] = {}
    for opcode, argument, _ in pickletools.genops(data):
        name, before = opcode.name, opcode.stack_before
        if name in _REFUSED:
            raise ValueError(f"it has the operation {name}.")
        if name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(data):
            raise ValueError("it is damaged: a memo index exceeds its size.")
        taken: list[bool | None] = []  # the topmost first
        n_single = len(before)
        if pickletools.markobject in before or (name == "POP" and stack[-1:] == [None]):
            while (top := stack.pop()) is not None:
                taken.append(top)
            n_single = before.index(pickletools.markobject) if pickletools.markobject in before else 0
        keys = taken[1::2] if name in ("DICT", "SETITEMS") else []
        taken += [stack.pop() for _ in range(n_single)]
        if name == "SETITEM":
            keys = taken[1:2]
        if any(keys):
            raise ValueError("a tuple is the key of a dict.")
        made: bool | None = "TUPLE" in name
        if name in ("GET", "BINGET", "LONG_BINGET"):
            made = memo[int(argument or 0)]
        elif name in ("MEMOIZE", "DUP"):
            made = taken[0]
        stack += [None if kind is pickletools.markobject else made for kind in opcode.stack_after]
        if name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[int(argument or 0)] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]


def load_plain_pickle(path: str | os.PathLike) -> Any:
    """Read a pickle of plain containers and numpy arrays, without running anything that it names.

    Parameters
    ----------
    path : path
        The file. Pickles of Python 2 and 3, of numpy 1 and 2 and of every protocol are read.

    Returns
    -------
    content : object
        Dicts (whose keys are no tuples), lists, tuples, strings, bytes, numbers and arrays. Arrays of objects
        become lists.

    Raises
    ------
    ValueError
        If it names anything else, is damaged, or has more than 64 MiB. The message names the file and the global.
    """
    path = Path(path)
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise ValueError(f"{path} is not read: it has {size:,} bytes, the limit is {_MAX_BYTES:,}.")
    data = path.read_bytes()
    try:
        _check_operations(data)
        return _plain(_Unpickler(io.BytesIO(data), encoding="latin1").load(), {}, 0)
    except (
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        IndexError,
        EOFError,
        OverflowError,
        RecursionError,
        MemoryError,
        pickle.UnpicklingError,
    ) as error:
        raise ValueError(f"{path} is not read as ground truth: {str(error).removesuffix('.')}.") from error


def _plain(thing: Any, done: dict[int, Any], depth: int) -> Any:
    """Put arrays in place of their stand-ins. Shared parts are visited once, so that sharing cannot blow it up."""
    if thing is None or isinstance(thing, bool | int | float | str | bytes):
        return thing
    if depth > _MAX_DEPTH:
        raise ValueError(f"it is nested more than {_MAX_DEPTH} deep.")
    if id(thing) in done:
        if done[id(thing)] is done:
            raise ValueError("it contains itself.")
        return done[id(thing)]
    done[id(thing)] = done
    result: Any
    if isinstance(thing, _Array) and isinstance(thing.value, np.ndarray):
        result = thing.value
    elif isinstance(thing, _Array) and isinstance(thing.value, list):
        result = [_plain(part, done, depth + 1) for part in thing.value]
    elif isinstance(thing, list | tuple):
        result = type(thing)(_plain(part, done, depth + 1) for part in thing)
    elif isinstance(thing, dict):
        result = {_plain(k, done, depth + 1): _plain(v, done, depth + 1) for k, v in thing.items()}
    else:
        raise ValueError(f"it holds a {type(thing).__name__} that is neither container nor array.")
    done[id(thing)] = result
    return result


def load_revisited_ground_truth(path: str | os.PathLike) -> Bunch:
    """Read the ground truth of ROxford5k or RParis6k in its published format.

    Nothing that the pickle names is run: see the errors.

    Parameters
    ----------
    path : path
        ``gnd_roxford5k.pkl``, ``gnd_rparis6k.pkl``, or a file of the same format: a dict with `imlist`, `qimlist` and
        `gnd`, a list with a dict of `bbx`, `easy`, `hard` and `junk` for each query.

    Returns
    -------
    ground_truth : :class:`~sklearn.utils.Bunch`
        With the attributes

        imlist : list of str
            The names of the gallery images, without ending.
        qimlist : list of str
            The names of the query images.
        gnd : list of dict
            For each query `easy`, `hard` and `junk`, int64 arrays of positions in `imlist`, and `bbx`, a float64
            array (left, top, right, bottom), or None.

    Raises
    ------
    ValueError
        If the pickle holds anything but plain containers and numpy arrays (the message names what), or is not of
        this format.

    References
    ----------
    Radenović et al., Revisiting Oxford and Paris: large-scale image retrieval benchmarking, CVPR 2018.

    Examples
    --------
    >>> import pickle, tempfile
    >>> from skretrieval.datasets import load_revisited_ground_truth
    >>> query = {"bbx": [0, 0, 9, 9], "easy": [1], "hard": [], "junk": [0]}
    >>> with tempfile.NamedTemporaryFile(suffix=".pkl") as file:
    ...     pickle.dump({"imlist": ["a", "b"], "qimlist": ["q"], "gnd": [query]}, file)
    ...     file.flush()
    ...     load_revisited_ground_truth(file.name).gnd[0]["easy"]
    array([1])
    """
    content = load_plain_pickle(path)
    try:
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}.")
        imlist, qimlist = (_names(content[key], key) for key in ("imlist", "qimlist"))
        gnd = content["gnd"]
        if not isinstance(gnd, list | tuple) or len(gnd) != len(qimlist):
            raise ValueError(f"gnd must be a list of {len(qimlist)} dicts, one for each of qimlist.")
        queries = [_query(index, entry, len(imlist)) for index, entry in enumerate(gnd)]
    except (KeyError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error).removesuffix(".")
        raise ValueError(f"{path} is no ground truth of the revisited benchmarks: {reason}.") from error
    return Bunch(imlist=imlist, qimlist=qimlist, gnd=queries)


def _names(value: Any, key: str) -> list[str]:
    names = value.ravel().tolist() if isinstance(value, np.ndarray) else list(value)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"{key} must be a list of names, got {value!r:.80}.")
    return names


def _query(index: int, entry: Any, n_images: int) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise ValueError(f"gnd[{index}] is no dict but {type(entry).__name__}.")
    query: dict[str, Any] = {}
    for key in ("easy", "hard", "junk"):
        values = np.asarray(entry[key]).ravel()
        whole = values.dtype.kind in "iu" or (values.dtype.kind == "f" and np.all(values == np.floor(values)))
        if values.size and not whole:
            raise ValueError(f"gnd[{index}][{key!r}] must be positions, got {values.dtype}.")
        positions = values.astype(np.int64)
        if positions.size and (positions.min() < 0 or positions.max() >= n_images):
            raise ValueError(f"gnd[{index}][{key!r}] has positions outside 0 to {n_images - 1}.")
        query[key] = positions
    box = entry.get("bbx")
    query["bbx"] = None if box is None else np.asarray(box, dtype=np.float64).ravel()
    if box is not None and (query["bbx"].size != 4 or not np.isfinite(query["bbx"]).all()):
        raise ValueError(f"gnd[{index}]['bbx'] must be four numbers, got {box!r:.80}.")
    return query
