"""Galleries of exact search, small and large."""

import pytest

from skretrieval.retrieval._search import _scorer


@pytest.fixture(scope="module", params=["small", "large"])
def gallery_kind(request):
    """Treat the galleries of these tests as small ones and as large ones (see ``_scorer``)."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "large":
            patch.setattr(_scorer, "_SMALL_GALLERY", 0)
        yield request.param
