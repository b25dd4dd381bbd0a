"""dtype="auto": bfloat16 where the device multiplies it natively."""

import numpy as np
import pytest
import torch
from fixtures.convolution import photographs, small

from skretrieval.extraction import _dtype


@pytest.fixture
def capable(monkeypatch):
    """Let the processor have bfloat16, or not."""

    def set_to(value):
        monkeypatch.setattr(_dtype, "_cpu_multiplies_bfloat16", lambda: value)

    return set_to


@pytest.mark.parametrize(("native", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_what_the_processor_is_fast_in(capable, native, expected):
    capable(native)
    auto, plain = small(dtype="auto", device="cpu"), small(dtype=expected, device="cpu")
    for extractor in (auto, plain):
        maps = extractor.fit_transform(photographs(2))
        assert extractor.dtype_ == expected
        assert next(maps.batches())[1].dtype == getattr(torch, expected)
    assert auto.cache_key() == plain.cache_key()
    assert auto.dtype == "auto"


def test_the_network_follows_the_processor(capable):
    """As a saved extractor does that is loaded on another machine."""
    capable(True)
    extractor = small(dtype="auto", device="cpu").fit(photographs(1))
    coarse = extractor.transform(photographs(1))[0]
    capable(False)
    fine = extractor.transform(photographs(1))[0]
    assert extractor.dtype_ == "float32"
    assert not np.array_equal(coarse, fine)
    np.testing.assert_array_equal(fine, small(device="cpu").fit_transform(photographs(1))[0])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"amx_bf16": True, "avx512_bf16": False}, True),
        ({"avx512_bf16": True}, True),
        ({"avx512_f": True, "avx2": True}, False),
        ({}, False),
    ],
)
def test_what_torch_says_of_the_processor(monkeypatch, found, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert _dtype._cpu_multiplies_bfloat16.__wrapped__() is expected


@pytest.mark.parametrize(("major", "expected"), [(7, "float32"), (8, "bfloat16"), (9, "bfloat16")])
def test_graphics_cards_by_their_generation(monkeypatch, major, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, 0))
    assert _dtype.dtype_on(torch.device("cuda")) == expected


def test_other_devices_have_float32():
    assert _dtype.dtype_on(torch.device("mps")) == "float32"
