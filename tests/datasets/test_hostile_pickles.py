"""Ground-truth pickles of some KB that would become GB, or take hours: refused in seconds."""

import pickle
import struct
import subprocess
import sys

import numpy as np


def shared_lists(bottom, depth=4, width=100):
    for _ in range(depth):
        bottom = [bottom] * width
    return bottom


def truth_of(**query):
    entry = {"bbx": [0, 0, 9, 9], "easy": [], "hard": [], "junk": []} | query
    return {"imlist": ["a"], "qimlist": ["q"], "gnd": [entry]}


def text_and_encode(n_bytes):
    head = b"\x80\x02X" + struct.pack("<I", n_bytes) + b"a" * n_bytes + b"q\x00c_codecs\nencode\nq\x01"
    return head + b"](", b"h\x01h\x00X\x06\x00\x00\x00latin1\x86R"


def encoded_over_and_over():
    head, once = text_and_encode(1 << 20)
    return head + once * 6000 + b"e."


def scalars_of_a_long_text():
    kind = b"cnumpy\ndtype\n(S'S9999'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbq\x02"
    raw = (
        b"\x80\x02B"
        + struct.pack("<I", 9999)
        + b"a" * 9999
        + b"q\x00cnumpy.core.multiarray\nscalar\nq\x01"
        + kind
    )
    return raw + b"](" + b"h\x01h\x02h\x00\x86R" * 100_000 + b"e."


def old_texts_as_values():
    kind = b"cnumpy\ndtype\n(S'i1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbq\x02"
    head = b"\x80\x02X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"q\x00"
    head += b"cnumpy.core.numeric\n_frombuffer\nq\x01" + kind + b"]("
    return (
        head
        + (b"h\x01(h\x00h\x02J" + struct.pack("<i", 1 << 20) + b"\x85X\x01\x00\x00\x00CtR") * 6000
        + b"e."
    )


def colliding_integers():
    out = b"\x80\x02}("
    for i in range(1, 60001):
        number = i * ((1 << 61) - 1)
        digits = number.to_bytes((number.bit_length() + 8) // 8, "little", signed=True)
        out += b"\x8a" + bytes([len(digits)]) + digits + b"N"
    return out + b"u."


def colliding_reals():
    reals = (struct.pack(">d", float(2.0 ** (61 * (i % 16)) * (1 + i // 16))) for i in range(60000))
    return b"\x80\x02}(" + b"".join(b"G" + real + b"N" for real in reals) + b"u."


def one_array_for_many_queries():
    positions = np.zeros(100_000, dtype=np.int64)
    query = {"bbx": None, "easy": positions, "hard": positions, "junk": positions}
    return pickle.dumps({"imlist": ["a"] * 100_000, "qimlist": ["q"] * 50_000, "gnd": [query] * 50_000})


GROW = {
    "lists that share lists": lambda: pickle.dumps(truth_of(easy=shared_lists([0] * 100))),
    "lists that share lists, as a box": lambda: pickle.dumps(truth_of(bbx=shared_lists([0] * 100))),
    "lists that share lists, as names": lambda: pickle.dumps(
        truth_of() | {"imlist": shared_lists(["a"] * 100)}
    ),
    "lists that share arrays": lambda: pickle.dumps(truth_of(junk=shared_lists(np.zeros(10_000), 1, 10_000))),
    "tuples that share tuples": lambda: pickle.dumps(truth_of(hard=(((0,) * 99,) * 99,) * 99)),
    "one array for many queries": one_array_for_many_queries,
    "a text that is encoded over and over": encoded_over_and_over,
    "scalars of a long text": scalars_of_a_long_text,
    "texts of Python 2 as values": old_texts_as_values,
    "whole numbers of one hash": colliding_integers,
    "real numbers of one hash": colliding_reals,
    "many operations": lambda: b"\x80\x02](" + b"]" * 20_000_000 + b"e.",
    "a huge number": lambda: b"\x80\x02}(\x8b" + struct.pack("<i", 1 << 20) + b"\x01" * (1 << 20) + b"Nu.",
    "many digits": lambda: b"L" + b"9" * 1_000_000 + b"L\n.",
    "nested lists": lambda: b"]" * 1_000_000 + b"a" * 999_999 + b".",
    "nested tuples": lambda: b")" + b"\x85" * 1_000_000 + b".",
}


READ_ALL = """
import resource, sys
from skretrieval.datasets import load_revisited_ground_truth
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
before = peak()
for path in sys.argv[1:]:
    start = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    soon = int(start + 30)
    resource.setrlimit(resource.RLIMIT_CPU, (soon, -1))
    try:
        load_revisited_ground_truth(path)
    except ValueError as error:
        assert path in str(error) and len(str(error)) < 1000, str(error)[:1000]
    else:
        raise SystemExit(path + " was read")
    assert peak() - before < 500, path
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - start < 12, path
"""


def test_nothing_grows_beyond_its_file(tmp_path):
    paths = []
    for number, make in enumerate(GROW.values()):
        paths.append(tmp_path / f"{number}.pkl")
        paths[-1].write_bytes(make())
    done = subprocess.run([sys.executable, "-c", READ_ALL, *map(str, paths)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
