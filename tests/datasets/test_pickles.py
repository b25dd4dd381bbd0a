"""Ground-truth pickles: every way in which numpy writes them is read, nothing else is."""

import os
import pickle
import pickletools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from skretrieval.datasets import load_revisited_ground_truth
from skretrieval.datasets._pickles import load_plain_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def content():
    return {
        "imlist": ["all_souls_000000", "björk", "c"],
        "qimlist": ["q1", "q2"],
        "gnd": [
            {
                "bbx": np.array([1.5, 2, 30, 40]),
                "easy": np.array([0]),
                "hard": np.array([1, 2]),
                "junk": np.array([]),
            },
            {"bbx": [1, 2.5, 3, 4], "easy": [], "hard": (2,), "junk": np.array([0], dtype=">i2")},
        ],
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gnd.pkl"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_the_published_format_is_read(path, protocol, core):
    data = pickle.dumps(content(), protocol)
    if protocol < 4:  # as numpy 1 and numpy 2 name their modules
        data = data.replace(b"numpy._core", core).replace(b"numpy.core", core)
    elif core == b"numpy.core":
        data = as_numpy_1(data)
    path.write_bytes(data)
    truth = load_revisited_ground_truth(path)
    assert truth.imlist == content()["imlist"]
    assert truth.qimlist == ["q1", "q2"]
    first, second = truth.gnd
    assert_array_equal(first["bbx"], [1.5, 2, 30, 40])
    assert_array_equal(second["bbx"], [1, 2.5, 3, 4])
    for entry, easy, hard, junk in ((first, [0], [1, 2], []), (second, [], [2], [0])):
        for key, expected in (("easy", easy), ("hard", hard), ("junk", junk)):
            assert entry[key].dtype == np.int64
            assert_array_equal(entry[key], expected)


def as_numpy_1(data):
    """Rename the modules in a pickle with counted strings: the counts change with them."""
    new, old = b"numpy._core", b"numpy.core"
    out, end = [], 0
    for opcode, argument, position in pickletools.genops(data):
        if opcode.name == "SHORT_BINUNICODE" and argument.startswith("numpy._core"):
            text = argument.encode().replace(new, old)
            out += [data[end:position], b"\x8c", bytes([len(text)]), text]
            end = position + 2 + len(argument)
        elif opcode.name == "FRAME":  # frames count bytes too, and are optional
            out.append(data[end:position])
            end = position + 9
    return b"".join([*out, data[end:]])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(3.5),
        np.array(["a", "bcd"]),
        np.array([b"a", b"bcd"]),
        np.array([True, False]),
        np.arange(4, dtype=">f4"),
        np.zeros((0, 3), dtype=np.int32),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_arrays_survive(path, protocol, array):
    path.write_bytes(pickle.dumps({"a": array, "b": [array]}, protocol))
    loaded = load_plain_pickle(path)
    assert_array_equal(loaded["a"], array)
    assert loaded["a"].dtype == array.dtype
    assert loaded["a"].shape == array.shape
    assert loaded["b"][0] is loaded["a"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scalars_and_object_arrays_become_plain(path, protocol):
    objects = np.empty(2, dtype=object)
    objects[:] = ["name", np.array([1, 2])]
    path.write_bytes(
        pickle.dumps([np.float32(0.5), np.int64(-3), np.str_("x"), objects, None, b"\xff", 2**70], protocol)
    )
    loaded = load_plain_pickle(path)
    assert loaded[:3] == [0.5, -3, "x"]
    assert loaded[3][0] == "name"
    assert_array_equal(loaded[3][1], [1, 2])
    assert loaded[4:] == [None, b"\xff", 2**70]


def test_pickles_of_python_2_are_read(path):
    # {'a': array([1, 2], dtype='<i4'), 'b': 'text'} as Python 2.7 and numpy 1.16 write it
    path.write_bytes(
        b"(dp0\nS'a'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\nS'b'\np5\ntp6\n"
        b"Rp7\n(I1\n(I2\ntp8\ncnumpy\ndtype\np9\n(S'i4'\np10\nI0\nI1\ntp11\nRp12\n(I3\nS'<'\np13\nNNNI-1\nI-1\nI0\n"
        b"tp14\nbI00\nS'\\x01\\x00\\x00\\x00\\x02\\x00\\x00\\x00'\np15\ntp16\nbsS'b'\nS'text'\np17\ns."
    )
    loaded = load_plain_pickle(path)
    assert_array_equal(loaded["a"], np.array([1, 2], dtype="<i4"))
    assert loaded["b"] == "text"


class Hostile:
    """Pickles itself as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("function", "argument", "named"),
    [
        (os.system, "touch {}", r"(posix|nt)\.system"),
        (eval, "open({!r}, 'w')", r"(builtins|__builtin__)\.eval"),
        (exec, "open({!r}, 'w')", r"(builtins|__builtin__)\.exec"),
        (os.mkdir, "{}", r"(posix|nt)\.mkdir"),
        (np.load, "{}", r"numpy.*\.load"),
        (np.fromfile, "{}", r"numpy.*\.fromfile"),
        (getattr, "{}", r"(builtins|__builtin__)\.getattr"),
    ],
)
def test_calls_are_not_made_and_are_named(path, tmp_path, protocol, function, argument, named):
    target = tmp_path / "ran"
    truth = content() | {"extra": Hostile(function, argument.format(str(target)))}
    path.write_bytes(pickle.dumps(truth, protocol))
    with pytest.raises(
        ValueError, match=rf"gnd\.pkl is not read as ground truth: it names the global {named}"
    ):
        load_revisited_ground_truth(path)
    assert not target.exists()


NDARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
TYPE = b"cnumpy\ndtype\n(S'%s'\nI0\nI1\ntR(I3\nS'%s'\nNNNI-1\nI-1\nI0\ntb"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"cnumpy\nndarray\n(I5\ntR.", "makes an array in a way"),
        (b"cnumpy\nndarray\n.", "neither container nor array"),
        (b"cnumpy\ndtype\n(S'V8'\ntR.", "type 'V8'"),
        (b"cnumpy\ndtype\n(S'f8,O'\ntR.", "type 'f8,O'"),
        (b"cnumpy\ndtype\n(S'M8[ns]'\ntR.", r"type 'M8\[ns\]'"),
        (b"cnumpy\ndtype\n(S'i8'\nI0\nI1\ntR(I3\nS'<'\nN(S'a'\ntNI-1\nI-1\nI0\ntb.", "structured"),
        (b"cnumpy\ndtype\n(S'i8'\nI0\nI1\ntR.", "neither container nor array"),
        # objects out of raw bytes would be pointers
        (NDARRAY + b"(I1\n(I1\nt" + TYPE % (b"O8", b"|") + b"I00\nS'AAAAAAAA'\ntb.", "no list of them"),
        (
            b"cnumpy.core.numeric\n_frombuffer\n(S'AAAAAAAA'\n" + TYPE % (b"O8", b"|") + b"(I1\ntS'C'\ntR.",
            "no bytes",
        ),
        (b"cnumpy.core.multiarray\nscalar\n(" + TYPE % (b"O8", b"|") + b"S'AAAAAAAA'\ntR.", "no bytes"),
        (NDARRAY + b"(I1\n(I9\nt" + TYPE % (b"i4", b"<") + b"I00\nS'AAAA'\ntb.", "reshape"),
        (NDARRAY + b"(I1\n(I1\ntS'i4'\nI00\nS'AAAA'\ntb.", "has no type"),
        (NDARRAY + b"(I1\ntb.", "not enough values"),
        (NDARRAY + b".", "neither container nor array"),
        (b"c_codecs\nencode\n(Vx\nVzip\ntR.", "encoding 'zip'"),
        (b"c_codecs\nencode\n(dS'__kwdefaults__'\nNsb.", "state to a function"),
        (b"cbuiltins\nbytes\n(I100000000000\ntR.", "makes bytes in a way"),
        (b"cbuiltins\n__import__\n.", "builtins.__import__"),
        (b"cskretrieval.datasets._pickles\nos.system\n.", "global skretrieval"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.dump\x93.", r"global numpy\.ndarray\.dump"),
        (b"(iposix\nsystem\n.", "operation INST"),
        (b"(cnumpy\ndtype\no.", "operation OBJ"),
        (b"(cposix\nsystem\no.", r"global posix\.system"),
        (b"\x80\x02cnumpy\ndtype\n)\x81.", "operation NEWOBJ"),
        (b"\x80\x02cposix\nsystem\n)\x81.", r"global posix\.system"),
        (b"Pid\n.", "operation PERSID"),
        (b"\x80\x02\x82\x01.", "operation EXT1"),
        (b"\x80\x05\x97.", "operation NEXT_BUFFER"),
        (b"N\x72\xff\xff\xff\x7f.", "memo index exceeds its size"),
        (b"Np2000000000\n.", "memo index exceeds its size"),
        (b"(lp0\ng0\na.", "contains itself"),
        (b"(l" * 200 + b"a" * 199 + b".", "nested more than"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.", "not read as ground truth"),
        (b"\x96\xff\xff\xff\xff\xff\xff\xff\x0f.", "not read as ground truth"),
        (b"", "not read as ground truth"),
        (b"not a pickle", "not read as ground truth"),
    ],
)
def test_hostile_and_damaged_bytes(path, data, why):
    path.write_bytes(data)
    with pytest.raises(ValueError, match=why):
        load_plain_pickle(path)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02}" + b")" + b"\x85" * 1_000_000 + b"K\x01s.",  # would overflow the stack of the interpreter
        b"\x80\x02}" + b")" + b"2\x86" * 60 + b"K\x01s.",  # would be hashed for 2 ** 60 steps
        b"\x80\x02}(K\x02K\x03)\x85Nu.",
        b"\x80\x02)q\x000(K\x02K\x03h\x00Nd.",
        b"\x80\x04)\x940}h\x00Ns.",
        b"\x80\x02}(K\x01K\x02tK\x03s.",
    ],
)
def test_tuples_are_no_keys(path, data):
    path.write_bytes(data)
    with pytest.raises(ValueError, match="a tuple is the key of a dict"):
        load_plain_pickle(path)


def test_sharing_does_not_blow_up(path):
    lists = []
    for _ in range(30):  # 2 ** 30 leaves, were each visited by every way
        lists = [lists, lists]
    path.write_bytes(pickle.dumps(lists))
    assert len(load_plain_pickle(path)) == 2


def test_large_files_are_not_read(path):
    with open(path, "wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(ValueError, match="67,108,865 bytes, the limit"):
        load_plain_pickle(path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_flipped_bytes_give_a_value_or_a_value_error(path, data):
    protocol = data.draw(st.sampled_from(list(PROTOCOLS)))
    changed = bytearray(pickle.dumps(content(), protocol))
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(changed)
    try:
        load_revisited_ground_truth(path)
    except ValueError as error:
        assert "gnd.pkl" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda truth: [truth], "it holds a list"),
        (lambda truth: truth.pop("imlist") and truth, "it has no 'imlist'"),
        (lambda truth: truth | {"imlist": [1, 2]}, "imlist must be a list of names"),
        (lambda truth: truth | {"imlist": []}, "imlist must be a list of names"),
        (lambda truth: truth | {"qimlist": ["q1"]}, "a list of 1 dicts"),
        (lambda truth: truth | {"gnd": [1, 2]}, r"gnd\[0\] is no dict"),
        (lambda truth: truth["gnd"][1].pop("hard") and truth, "it has no 'hard'"),
        (
            lambda truth: truth["gnd"][1].update(easy=[3]) or truth,
            r"gnd\[1\]\['easy'\] has positions outside 0 to 2",
        ),
        (lambda truth: truth["gnd"][1].update(junk=[-1]) or truth, r"\['junk'\] has positions outside"),
        (lambda truth: truth["gnd"][1].update(junk=["a"]) or truth, "must be positions"),
        (lambda truth: truth["gnd"][1].update(junk=[0.5]) or truth, "must be positions"),
        (lambda truth: truth["gnd"][1].update(bbx=[1, 2, 3]) or truth, r"\['bbx'\] must be four numbers"),
        (lambda truth: truth["gnd"][1].update(bbx=[1, 2, 3, np.nan]) or truth, "must be four numbers"),
    ],
)
def test_other_content_is_no_ground_truth(path, change, why):
    path.write_bytes(pickle.dumps(change(content())))
    with pytest.raises(
        ValueError, match=rf"gnd\.pkl is no ground truth of the revisited benchmarks: .*{why}"
    ):
        load_revisited_ground_truth(path)


def test_a_missing_file_is_said(path):
    with pytest.raises(FileNotFoundError):
        load_revisited_ground_truth(path)
