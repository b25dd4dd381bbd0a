"""Signed power normalisation."""

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse
from sklearn.base import clone

from skretrieval.postprocessing import PowerNormalizer

ROWS = np.array([[4.0, -9.0, 0.0, 0.25], [-1.0, 1e-12, 2.0, -0.0]])


@pytest.mark.parametrize("exponent", [0.5, 0.2, 1.0])
def test_formula(exponent):
    expected = [[np.sign(x) * abs(x) ** exponent for x in row] for row in ROWS]
    np.testing.assert_allclose(PowerNormalizer(exponent=exponent).transform(ROWS), expected, rtol=1e-14)


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(np.float64, (3, 4), elements=st.floats(-1e100, 1e100, allow_subnormal=False)),
    st.floats(0.1, 1.0),
)
def test_inverse_and_monotony(X, exponent):
    power = PowerNormalizer(exponent)
    Z = power.transform(X)
    np.testing.assert_allclose(power.inverse_transform(Z), X, rtol=1e-11)
    np.testing.assert_array_equal(np.sign(Z), np.sign(X))
    order = np.argsort(X, axis=1, kind="stable")
    assert np.all(np.diff(np.take_along_axis(Z, order, axis=1), axis=1) >= 0)


def test_rows_keep_their_own_length():
    assert np.linalg.norm(PowerNormalizer().transform([[9.0, 16.0]])) == pytest.approx(5.0)


def test_input_is_left_alone_and_dtype_kept():
    X = ROWS.astype(np.float32)
    X.flags.writeable = False
    for exponent in (0.5, 1.0):
        Z = PowerNormalizer(exponent).fit_transform(X)
        assert Z.dtype == np.float32
        assert Z.flags.writeable
        assert not np.shares_memory(X, Z)
    np.testing.assert_array_equal(X, ROWS.astype(np.float32))


def test_sparse_descriptors_stay_sparse():
    X = sparse.random(20, 50, density=0.1, format="csr", random_state=0)
    before = X.copy()
    Z = PowerNormalizer().fit_transform(X)
    assert sparse.issparse(Z)
    assert Z.nnz == X.nnz
    np.testing.assert_allclose(Z.toarray(), PowerNormalizer().transform(X.toarray()))
    assert (before != X).nnz == 0


@pytest.mark.parametrize("exponent", [0, -0.5, 1.5, "half"])
def test_bad_exponent(exponent):
    with pytest.raises(ValueError, match="exponent"):
        PowerNormalizer(exponent).fit(ROWS)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(value):
    with pytest.raises(ValueError, match="contains"):
        PowerNormalizer().transform(np.where(ROWS == 4, value, ROWS))


def test_names_frames_and_persistence(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(ROWS, columns=list("abcd"))
    power = clone(PowerNormalizer(0.3)).set_output(transform="pandas").fit(frame)
    assert list(power.get_feature_names_out()) == list("abcd")
    Z = power.transform(frame)
    assert list(Z.columns) == list("abcd")
    joblib.dump(power, tmp_path / "power.joblib")
    pd.testing.assert_frame_equal(joblib.load(tmp_path / "power.joblib").transform(frame), Z)
