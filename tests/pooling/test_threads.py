"""Threads that share one fitted pooler get what one of them would."""

from concurrent.futures import ThreadPoolExecutor

from numpy.testing import assert_array_equal
from pooling.cases import N_CHANNELS, as_table, parametrize_with_poolers
from references.maps import make_ragged

pytest_generate_tests = parametrize_with_poolers


def test_threads_may_share_a_fitted_pooler(case):
    maps = make_ragged(n_channels=N_CHANNELS, shapes=[(4, 6), (7, 7), (4, 6), (3, 14)], seed=3)
    pooler = case.make().fit(maps)
    expected = as_table(pooler.transform(maps))
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: as_table(pooler.transform(maps)), range(8)):
            assert_array_equal(found, expected)
