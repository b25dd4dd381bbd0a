"""Descriptors in tensors: taken where they hold real numbers, refused in one sentence where not."""

import numpy as np
import pytest
import torch

from skretrieval.retrieval import NearestNeighborsRetriever

ODD = {
    "sparse": lambda ones: ones.to_sparse(),
    "sparse: give": lambda ones: ones.to_sparse_csr(),
    "meta device": lambda ones: ones.to("meta"),
    "quantised": lambda ones: torch.quantize_per_tensor(ones, 0.1, 0, torch.quint8),
    "nested": lambda ones: torch.nested.nested_tensor([ones, ones]),
    "complex numbers": lambda ones: ones.to(torch.complex64),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("words", sorted(ODD))
def test_tensors_without_plain_numbers_are_refused(words):
    odd = ODD[words](torch.ones(3, 4))
    with pytest.raises(ValueError, match=f"X .*{words}[^.]*(\\.[a-z_]+[^.]*)*\\.$"):
        NearestNeighborsRetriever().fit(odd)
    with pytest.raises(ValueError, match=f"Item 1 of X .*{words}"):
        NearestNeighborsRetriever().fit([torch.ones(3, 4), odd])


def test_complex_arrays_are_refused():
    with pytest.raises(
        ValueError, match=r"^Complex data not supported: X holds complex numbers, but .* real\.$"
    ):
        NearestNeighborsRetriever().fit(np.ones((3, 4), dtype=complex))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_tensors_with_gradients_are_as_good_as_arrays(dtype):
    given = torch.arange(12.0).reshape(3, 4).to(dtype).requires_grad_()
    wanted = np.arange(12.0).reshape(3, 4)
    for metric in ("cosine", "euclidean"):
        retriever = NearestNeighborsRetriever(2, metric=metric).fit(given)
        np.testing.assert_array_equal(retriever.predict(given), retriever.predict(wanted))
    sets = NearestNeighborsRetriever(2).fit([given, given[:1]])
    assert sets.n_samples_fit_ == 2


def test_true_and_false_are_numbers():
    given = np.eye(3, dtype=bool)
    assert NearestNeighborsRetriever(1).fit(given).predict(given).ravel().tolist() == [0, 1, 2]
