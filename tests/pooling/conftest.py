"""The poolers of the tests: those that compute a formula, with and without their defaults."""

import pytest
from pooling.cases import FORMULAS
from pooling.variants import VARIANTS


@pytest.fixture(scope="session", params=FORMULAS, ids=lambda case: case.name)
def case(request):
    """A pooler with the papers' settings and a reference."""
    return request.param


@pytest.fixture(scope="session", params=FORMULAS + VARIANTS, ids=lambda case: case.name)
def variant(request):
    """A pooler with any settings and a reference."""
    return request.param


@pytest.fixture
def pooler(case):
    """An unfitted copy of the pooler of ``case``."""
    return case.make()
