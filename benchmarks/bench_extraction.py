"""From photographs to descriptors: how much of the time is the network's, and how near it is to the machine's limit.

Networks have random weights: time does not depend on their values. Photographs are JPEGs, of 1024 x 768 (as those of
Oxford and Paris are) and of 3072 x 2304 (as a camera's are), with the longest side set to 1024.
"""

import functools

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from skretrieval.datasets import load_sample_photographs
from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.pooling import GRMACPooler

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NETWORKS = {"vgg16": 2, "resnet50": 3, "squeezenet1_0": 10}  # with how many photographs on a CPU
ROUNDS = {"vgg16": 2}  # of 5 s each
DTYPES = ["float32", "bfloat16"]
KINDS = {"photographs of 1024 px": (1024, 768), "photographs of 7 megapixels": (3072, 2304)}
CASES = [
    (kind, name, dtype)
    for kind in KINDS
    for name in NETWORKS
    for dtype in DTYPES
    if dtype == "float32" or kind == "photographs of 1024 px"
]
BESIDE = ", decoded and resized on the cores that the network wants: see the next table"
SHARE = 0.9  # of the time that has to be the network's


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Return the paths of the photographs of each kind."""
    source = Image.open(load_sample_photographs().images[0]).convert("RGB")
    n = 64 if DEVICE == "cuda" else max(NETWORKS.values())
    paths = {}
    for kind, size in KINDS.items():
        folder = tmp_path_factory.mktemp("photographs")
        pixels = np.asarray(source.resize(size))
        paths[kind] = [str(folder / f"{index:03d}.jpg") for index in range(n)]
        for index, path in enumerate(paths[kind]):
            Image.fromarray(np.roll(pixels, 37 * index, axis=1)).save(path, quality=90)
    return paths


@functools.lru_cache(maxsize=1)
def fitted(name, dtype):
    grey = np.full((64, 64, 3), 128, dtype=np.uint8)  # nothing is learned
    return ConvFeatureExtractor(
        name, weights=None, random_state=0, image_size=1024, dtype=dtype, device=DEVICE
    ).fit([grey])


class Chain:
    """An extractor, a pooler, and the network's inputs for the same photographs, ready on the device."""

    def __init__(self, name, dtype, paths):
        self.n = len(paths) if DEVICE == "cuda" else NETWORKS[name]
        self.paths = paths[: self.n]
        self.extractor = fitted(name, dtype)
        self.maps = self.extractor.transform(self.paths)
        self.pooler = GRMACPooler().fit(self.maps)
        network = self.extractor._network()
        self.module = network.module
        entries = [self.extractor._read(place, path, None, None) for place, path in enumerate(self.paths)]
        size = self.extractor._n_together(entries[0])
        mean = torch.tensor(network.mean, device=DEVICE).view(1, 3, 1, 1)
        self.inputs = []
        for start in range(0, self.n, size):
            pixels = np.stack([entry.arrays[0] for entry in entries[start : start + size]])
            batch = torch.from_numpy(pixels).to(DEVICE).permute(0, 3, 1, 2).float().div_(255).sub_(mean)
            self.inputs.append(batch.to(network.dtype))
        self.network()

    def run(self):
        self.pooler.transform(self.maps)

    @torch.inference_mode()
    def network(self):
        for batch in self.inputs:
            last = self.module(batch)
        return finished(last)

    def decode(self):
        for place, path in enumerate(self.paths):
            self.extractor._read(place, path, None, None)


def finished(result):
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return result


@pytest.mark.parametrize(("kind", "name", "dtype"), CASES)
def test_chain(against, photographs, kind, name, dtype):
    chain = Chain(name, dtype, photographs[kind])
    ratio = against(
        chain.run,
        chain.network,
        table="From photographs to descriptors, whole chain (decode, resize, network, GR-MAC)",
        row=f"{name}, {dtype}",
        column=kind,
        to="the bare network",
        limit=1 / SHARE if dtype == "float32" else None,
        rounds=ROUNDS.get(name, 3),
        warm=False,
        note=f"{chain.n} photographs" + BESIDE * (kind != "photographs of 1024 px"),
    )
    assert ratio > 0.5


@pytest.mark.parametrize("name", NETWORKS)
def test_beside_the_network(against, photographs, name):
    """Decoding and pooling by themselves, nothing overlapping."""
    chain = Chain(name, "float32", photographs["photographs of 7 megapixels"])
    maps = [torch.as_tensor(chain.maps[0]).to(DEVICE)] * chain.n
    against(
        lambda: finished(chain.pooler.transform(maps)),
        chain.network,
        table="Beside the network, float32",
        row=name,
        column="GR-MAC",
        to="the bare network",
        limit=0.05 if DEVICE == "cuda" else None,
        rounds=ROUNDS.get(name, 3),
        warm=False,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_decoding(against, photographs, kind):
    chain = Chain("squeezenet1_0", "float32", photographs[kind])
    against(
        chain.decode,
        chain.network,
        table="Beside the network, float32",
        row="squeezenet1_0",
        column=f"decode and resize on one core, {kind}",
        to="the bare network",
        rounds=3,
        warm=False,
        note="runs beside the network, in threads",
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_ceiling(against, photographs, name, dtype):
    chain = Chain(name, dtype, photographs["photographs of 1024 px"])
    with FlopCounterMode(display=False) as counter:
        chain.network()
    operations = counter.get_total_flops()
    side = 2048
    kind = getattr(torch, dtype)
    right = torch.randn(side, side, device=DEVICE).to(kind)
    left = torch.randn(max(1, operations // (2 * side * side)), side, device=DEVICE).to(kind)
    ratio = against(
        chain.network,
        lambda: finished(left @ right),
        table="The bare network against the matrix product, at 1024 px",
        row=name,
        column=dtype,
        to="one matrix product of as many operations",
        rounds=ROUNDS.get(name, 3),
        warm=False,
        note=f"{operations / chain.n / 1e9:.0f} GFLOP a photograph",
    )
    assert ratio > 0.5
