"""Poolers in passes over the data, and against plain NumPy and plain slices.

A pass is the time of ``torch.sum`` over the flat float32 batch: of reading it from memory once. The caches are emptied
before each call, of a pooler as of the pass: a batch that the last call left there is read in a fraction of the time,
which depends on who left what. (The table "one pass again" says how small a fraction.) Times are those of the
processor, of one thread, so that what other work on the machine takes does not count (how it slows caches and memory
down does, for both). Columns:

* describe: ``_describe`` alone, on batches that are checked and stacked;
* tensor: ``transform`` of one 4-D tensor, the check for NaN, infinity and signs included;
* list: ``transform`` of a list of NumPy arrays, which are checked, sorted by shape and stacked as well;
* channels last: "tensor" in the memory format that networks on a CPU are run in.
"""

import time
from functools import cache, lru_cache

import numpy as np
import pytest
import torch
from sklearn.base import clone

from skretrieval.pooling import (
    AdaptiveGaussianPooler,
    CroWPooler,
    GeMPooler,
    GRMACPooler,
    MACPooler,
    PoolerFusion,
    RegionIntegrationPooler,
    RMACPooler,
    SJWPooler,
    SPoCPooler,
    SquareSumRMACPooler,
    SumPooler,
    regions,
)
from skretrieval.pooling._engine._batches import BLOCK_BYTES, iter_batches

pytestmark = pytest.mark.benchmark(timer=time.thread_time)

SHAPES = [(512, 37, 50), (512, 24, 32), (2048, 24, 32)]
RAGGED = [(512, 37, 50), (512, 24, 32), (512, 32, 24), (512, 28, 37)]
#: name -> pooler, and the passes it may take for eight maps of 512 x 37 x 50
POOLERS = {
    "sum": (SumPooler(), 3),
    "MAC": (MACPooler(), 3),
    "GeM": (GeMPooler(), 6),
    "SPoC": (SPoCPooler(), 6),
    "CroW": (CroWPooler(), 10),
    "adaptive Gaussian": (AdaptiveGaussianPooler(), 10),
    "R-MAC": (RMACPooler(), 20),
    "GR-MAC": (GRMACPooler(), 20),
    "square-sum R-MAC": (SquareSumRMACPooler(), 20),
    "region integration": (RegionIntegrationPooler(), 20),
    "SJW": (SJWPooler(), 25),
    "GSW": (PoolerFusion([("grmac", GRMACPooler()), ("sjw", SJWPooler())], weights=[0.6, 0.4]), 35),
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@lru_cache(maxsize=2)
def make_maps(n, n_channels, height, width, seed=0):
    """Rectified noise, about a third of it positive."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, n_channels, height, width, generator=generator) - 0.4).clamp_(min=0)


def size_of(n, shape):
    return f"{n} of " + " x ".join(map(str, shape))


@cache
def fitted(name, n_channels):
    """The pooler of that name, having seen two maps of so many channels."""
    return clone(POOLERS[name][0]).fit(make_maps(2, n_channels, 24, 32))


@cache
def more_than_caches_hold():
    return torch.ones(32 * 2**20)  # 128 MiB


def empty_caches():
    more_than_caches_hold().sum()


def read_once(maps):
    """One pass over maps that lie in one piece, or in a list of pieces."""
    flat = [maps.flatten()] if isinstance(maps, torch.Tensor) else [one.flatten() for one in maps]
    return lambda: [one.sum() for one in flat]


def describe(pooler, maps):
    """What ``transform`` does between the checks and the result."""
    with torch.inference_mode():
        batches = [batch for (batch,) in iter_batches(list(maps), None, block_bytes=BLOCK_BYTES)]

    def run():
        with torch.inference_mode():
            return [pooler._describe((batch,)) for batch in batches]

    return run


def pooled(form, name, maps):
    """What the column `form` times."""
    pooler = fitted(name, maps[0].shape[0])
    if form == "describe":
        return describe(pooler, maps)
    if form == "list":
        maps = [one.numpy() for one in maps]
    elif form == "channels last":
        maps = maps.contiguous(memory_format=torch.channels_last)
    return lambda: pooler.transform(maps)


@pytest.mark.parametrize("form", ["describe", "tensor", "list", "channels last"])
@pytest.mark.parametrize("name", POOLERS)
@pytest.mark.parametrize("n", [8, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_passes(against, shape, n, name, form):
    maps = make_maps(n, *shape)
    limited = n == 8 and shape == SHAPES[0]
    against(
        pooled(form, name, maps),
        read_once(maps),
        table=f"Pooling: {size_of(n, shape)}",
        row=name,
        column=form,
        to="one pass",
        limit=POOLERS[name][1] if limited else None,
        before=empty_caches,
        seconds=1.0 if limited else 0.3,
    )


@pytest.mark.parametrize("n", [8, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_one_pass_again(against, shape, n):
    maps = make_maps(n, *shape)
    flat = maps.flatten()

    def twice():
        flat.sum()
        flat.sum()

    against(
        twice,
        read_once(maps),
        table="Pooling: one pass, and one pass again",
        row=size_of(n, shape),
        column="both",
        to="one pass",
        note="what exceeds 1 is a pass over a batch that lies in the cache, as far as it fits there",
        before=empty_caches,
        seconds=0.3,
    )


@pytest.mark.parametrize("form", ["describe", "list"])
@pytest.mark.parametrize("name", POOLERS)
def test_ragged(against, name, form):
    maps = [make_maps(1, *shape, seed=seed)[0] for seed, shape in enumerate(RAGGED * 3)]
    against(
        pooled(form, name, maps),
        read_once(maps),
        table="Pooling: 12 maps of four shapes, 512 channels",
        row=name,
        column=form,
        to="one pass",
        before=empty_caches,
        seconds=0.3,
    )


# ---------------------------------------------------------------------------------------------------------------------
# What one would write without the package


def numpy_sum(maps):
    return maps.sum(axis=(2, 3))


def numpy_mac(maps):
    return maps.max(axis=(2, 3))


def numpy_gem(maps):
    return np.cbrt((maps**3).mean(axis=(2, 3)))


def numpy_crow(maps):
    response = maps.sum(axis=1)
    spatial = np.sqrt(response / np.sqrt((response**2).sum(axis=(1, 2), keepdims=True)))
    filled = (maps > 0).mean(axis=(2, 3))
    channel = np.log(filled.sum(axis=1, keepdims=True) / (1e-6 + filled))
    return channel * (maps * spatial[:, None]).sum(axis=(2, 3))


def slices(maps):
    """The regions of R-MAC, one after another."""
    for row, col, high, wide in regions.rmac(*maps.shape[2:]).tolist():
        yield maps[:, :, row : row + high, col : col + wide]


def slices_rmac(maps):
    return sum(torch.nn.functional.normalize(cells.amax(dim=(2, 3))) for cells in slices(maps))


def slices_grmac(maps):
    return sum(cells.mean(dim=(2, 3)).pow(1 / 3) for cells in slices(maps.pow(3)))


PLAIN = {
    "sum": numpy_sum,
    "MAC": numpy_mac,
    "GeM": numpy_gem,
    "CroW": numpy_crow,
    "R-MAC": slices_rmac,
    "GR-MAC": slices_grmac,
}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("n", [8, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_against_plain_form(against, shape, n, name):
    maps = make_maps(n, *shape)
    by_slices = PLAIN[name] in (slices_rmac, slices_grmac)
    given = maps if by_slices else maps.numpy()
    ours = pooled("tensor", name, maps)
    np.testing.assert_allclose(ours(), PLAIN[name](given), rtol=2e-3)
    against(
        ours,
        lambda: PLAIN[name](given),
        table="Pooling by slices" if by_slices else "Pooling in plain NumPy",
        row=name,
        column=size_of(n, shape),
        to="slices" if by_slices else "NumPy",
        before=empty_caches,
        seconds=0.3,
    )
