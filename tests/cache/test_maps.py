"""What `memory` keeps of the maps: float32 or float16, or nothing."""

import os
import pickle

import joblib
import numpy as np
import pytest
import torch
from references.networks import counting_network, two_layer_network
from references.reads import counted_reads
from sklearn.base import clone
from torch import nn

from skretrieval.extraction import ConvFeatureExtractor, ConvKernelExtractor
from skretrieval.pooling import GeMPooler


def photographs(n=5):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40 + 8 * (i % 2), 64, 3), dtype=np.uint8) for i in range(n)]


def extractor(backbone=counting_network, **params):
    return ConvFeatureExtractor(
        backbone, **{"image_size": 64, "device": "cpu", "batch_size": 2, "weights": None, **params}
    )


class Loud(nn.Module):
    """Pixels from 0 to 1, times a factor."""

    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(factor)))

    def forward(self, images):
        grey = images.amax(dim=(2, 3), keepdim=True)
        return (grey > 0) * self.factor


def kept_files(folder):
    return sorted(folder.rglob("output.pkl"))


@pytest.mark.parametrize("backbone", [counting_network, two_layer_network])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_half_precision_is_the_same_in_every_pass(tmp_path, backbone, dtype):
    """First from the network, then from the disk, bit for bit: what float16 makes of the maps."""
    passes = [
        list(
            extractor(backbone, memory=tmp_path, memory_dtype="float16", dtype=dtype).fit_transform(
                photographs()
            )
        )
        for _ in range(2)
    ]
    exact = list(extractor(backbone, dtype=dtype).fit_transform(photographs()))
    for first, second, whole in zip(*passes, exact, strict=True):
        for layers in zip(*(entry if type(entry) is tuple else (entry,) for entry in (first, second, whole))):
            assert [layer.dtype for layer in layers] == [np.float32] * 3
            assert (
                layers[0].tobytes()
                == layers[1].tobytes()
                == layers[2].astype(np.float16).astype("f4").tobytes()
            )
    rounded, whole = (entries[0][0] for entries in (passes[0], exact))
    if dtype != "bfloat16":  # which float16 holds exactly, but for the smallest
        assert np.array_equal(rounded, whole) == (dtype == "float16")


def test_batches_are_half_as_large_in_every_pass(tmp_path):
    """Poolers make float32 of them block by block, where they compute on one thread."""
    maps = extractor(memory=tmp_path, memory_dtype="float16").fit_transform(photographs())
    assert [{batch.dtype for _, batch in maps.batches()} for _ in range(2)] == [{torch.float16}] * 2
    pooled = [GeMPooler().fit_transform(maps) for _ in range(2)]
    assert pooled[0].dtype == np.float32
    assert np.array_equal(*pooled)


def test_half_precision_takes_half_the_space(tmp_path):
    sizes = {}
    for dtype in ("float32", "float16"):
        list(
            extractor(memory=tmp_path / dtype, memory_dtype=dtype, image_size=512).fit_transform(
                photographs(2)
            )
        )
        files = kept_files(tmp_path / dtype)
        assert len(files) == 2
        sizes[dtype] = sum(file.stat().st_size for file in files)
        (stored,) = joblib.load(files[0])
        assert stored.dtype == dtype
    assert 0.5 <= sizes["float16"] / sizes["float32"] < 0.51


def test_precisions_do_not_mix(tmp_path):
    """Not in maps nor in descriptors, whichever was first."""
    expected = GeMPooler().fit_transform(extractor().fit_transform(photographs()))
    found = {
        dtype: GeMPooler().fit_transform(
            extractor(memory=tmp_path, memory_dtype=dtype).fit_transform(photographs())
        )
        for dtype in ("float16", "float32")
    }
    assert np.array_equal(found["float32"], expected)
    assert not np.array_equal(found["float16"], expected)
    np.testing.assert_allclose(found["float16"], expected, rtol=2e-3)


@pytest.mark.parametrize("on_error", ["raise", "warn"])
def test_activations_beyond_half_precision(tmp_path, on_error):
    images = [np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)]
    params = {"memory_dtype": "float16", "image_size": None, "on_error": on_error}
    fine = extractor(Loud(65504), memory=tmp_path, **params).fit_transform(images)
    assert fine[1].max() == 65504
    loud = extractor(Loud(65505), memory=tmp_path, **params)
    with pytest.raises(ValueError, match=r"Entry 1 \(<ndarray>\): activations reach 65505, beyond 65504"):
        list(loud.fit_transform(images))
    with pytest.raises(ValueError, match=r"Entry 1 .*memory_dtype=\"float32\""):
        list(loud.fit_transform([*images, *images])[1:])
    for harmless in ({"memory": None}, {"memory_keeps": "descriptors"}, {"memory_dtype": "float32"}):
        assert clone(loud).set_params(**harmless).fit_transform(images)[1].max() == 65505


@pytest.mark.parametrize(
    ("keeps", "n_maps", "n_shards"), [("maps", 5, 0), ("descriptors", 0, 1), ("both", 5, 1)]
)
def test_what_is_kept(tmp_path, keeps, n_maps, n_shards):
    rows = [
        GeMPooler().fit_transform(extractor(memory=tmp_path, memory_keeps=keeps).fit_transform(photographs()))
        for _ in range(2)
    ]
    assert np.array_equal(*rows)
    assert len(kept_files(tmp_path)) == n_maps
    assert len(list(tmp_path.rglob("*.npz"))) == n_shards


def test_descriptors_alone_leave_kept_maps_alone(tmp_path):
    """Nothing is read of what an earlier setting kept, nor is it lost."""
    list(extractor(memory=tmp_path).fit_transform(photographs()))
    for file in kept_files(tmp_path):
        os.utime(file, (0, 0))
        file.write_bytes(b"would be damage if it were read")
    rows = GeMPooler().fit_transform(
        extractor(memory=tmp_path, memory_keeps="descriptors").fit_transform(photographs())
    )
    assert np.array_equal(rows, GeMPooler().fit_transform(extractor().fit_transform(photographs())))
    assert len(kept_files(tmp_path)) == 5


class OwnMemory:
    """Keeps maps in a dict: no place on disk."""

    def __init__(self):
        self.kept = {}

    def cache(self, func, ignore=None):
        memory = self

        class Store:
            def __call__(self, key, maps):
                return memory.kept[key]

            def call(self, key, maps):
                memory.kept[key] = maps

            def check_call_in_cache(self, key, maps):
                return key in memory.kept

        return Store()


@pytest.mark.parametrize("keeps", ["both", "descriptors"])
def test_a_memory_without_a_folder_keeps_no_descriptors(keeps):
    for memory, n_maps in ((OwnMemory(), 5), (joblib.Memory(location=None), 0)):
        model = extractor(memory=memory, memory_keeps=keeps).fit(photographs())
        with counted_reads() as read:
            for _ in range(2):
                GeMPooler().fit_transform(model.transform(photographs()))
        assert sum(read) == 10
        if isinstance(memory, OwnMemory):
            assert len(memory.kept) == (n_maps if keeps == "both" else 0)


def test_clearing_the_memory_clears_descriptors_too(tmp_path):
    memory = joblib.Memory(tmp_path, verbose=0)
    model = extractor(memory=memory).fit(photographs())
    GeMPooler().fit_transform(model.transform(photographs()))
    assert list(tmp_path.rglob("*.npz"))
    memory.clear(warn=False)
    assert not list(tmp_path.rglob("*.npz"))
    with counted_reads() as read:
        GeMPooler().fit_transform(model.transform(photographs()))
    assert sum(read) == 5
    memory.reduce_size(items_limit=0)  # which goes by the names of folders
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.parametrize("kind", [ConvFeatureExtractor, ConvKernelExtractor])
def test_parameters(kind, tmp_path):
    model = kind(memory=str(tmp_path), memory_keeps="descriptors", memory_dtype="float16")
    for copied in (clone(model), pickle.loads(pickle.dumps(model))):
        assert copied.get_params()["memory_keeps"] == "descriptors"
        assert copied.get_params()["memory_dtype"] == "float16"
    usual = kind().get_params()
    assert (usual["memory_keeps"], usual["memory_dtype"]) == ("both", "float32")
    for name, value in (("memory_keeps", "all"), ("memory_dtype", "bfloat16"), ("memory_dtype", None)):
        with pytest.raises(ValueError, match=name):
            kind(**{name: value}).fit(photographs())


def test_the_kernel_extractor_rounds_as_well(tmp_path):
    params = {"n_channels": (8, 16), "image_size": 32, "n_patches": 500, "random_state": 0}
    model = ConvKernelExtractor(**params, memory=tmp_path, memory_dtype="float16").fit(photographs())
    first, second = (list(model.transform(photographs())) for _ in range(2))
    exact = list(ConvKernelExtractor(**params).fit_transform(photographs()))
    for one, two, whole in zip(first, second, exact, strict=True):
        assert np.array_equal(one, two)
        assert np.array_equal(one, whole.astype(np.float16).astype(np.float32))
