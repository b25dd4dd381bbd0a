"""One test for each row of the table of bad input, through whole Pipelines."""

import io

import numpy as np
import pytest
from PIL import Image
from references.networks import counting_network

from skretrieval import recipes
from skretrieval.extraction import ConvFeatureExtractor, ImageCrop
from skretrieval.pooling import GeMPooler
from skretrieval.postprocessing import LearnedWhitening, PCAWhitening, PowerNormalizer
from skretrieval.retrieval import NearestNeighborsRetriever, QueryExpansion


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def model(**params):
    extractor = ConvFeatureExtractor(counting_network, image_size=64, device="cpu", **params)
    return recipes.gem(extractor=extractor, whitening=None, n_neighbors=2)


def bad_files(folder):
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, "PNG")
    files = {
        "truncated.png": buffer.getvalue()[:3000],
        "zero.jpg": b"",
        "text.jpg": b"this is a text",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    Image.fromarray(np.zeros((1, 1), dtype=np.uint8)).save(folder / "pixel.png")
    Image.new("1", (20000, 20000)).save(folder / "bomb.png")
    return [folder / name for name in (*files, "pixel.png", "bomb.png", "missing.jpg")]


@pytest.mark.parametrize("place", range(6))
def test_unreadable_photographs_raise(tmp_path, place):
    bad = bad_files(tmp_path)[place]
    error = FileNotFoundError if bad.name == "missing.jpg" else ValueError
    with pytest.raises(error, match=rf"Entry 2 \(.*{bad.name}"):
        model().fit([picture(0), picture(1), bad, picture(2)])


def test_unreadable_photographs_are_listed_and_zero(tmp_path):
    bad = bad_files(tmp_path)
    pipeline = model(on_error="warn")
    with pytest.warns(UserWarning, match="6 of 8 images could not be read") as caught:
        pipeline.fit([picture(0), *bad, picture(1)])
    listed = [warning for warning in caught if "could not be read" in str(warning.message)]
    assert len(listed) == 1
    for path in bad:
        assert path.name in str(listed[0].message)
    assert sorted(pipeline.named_steps["extractor"].failed_) == [1, 2, 3, 4, 5, 6]
    with pytest.warns(UserWarning, match="1 of 1 images"):
        distances, _ = pipeline[-1].kneighbors(pipeline[:-1].transform([bad[0]]), 2)
    assert np.array_equal(distances, [[1, 1]])  # a zero descriptor is like nothing


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_inf(value):
    maps = [np.ones((3, 4, 4 + i)) for i in range(5)]
    maps[3][1, 2, 2] = value
    with pytest.raises(ValueError, match="Entry 3: the feature map contains"):
        GeMPooler().fit_transform(maps)
    with pytest.raises(ValueError, match="Entry 3: the feature map contains"):
        GeMPooler().fit(maps[:3]).transform(maps)
    rows = np.random.default_rng(0).random((6, 4))
    rows[4, 1] = value
    y = np.array([0, 0, 1, 1, 2, 2])
    for step in (PowerNormalizer(), PCAWhitening(), LearnedWhitening(), NearestNeighborsRetriever(2)):
        with pytest.raises(ValueError, match=r"NaN|infinity|inf"):
            step.fit(rows, y)
    for retriever in (NearestNeighborsRetriever(2), QueryExpansion(NearestNeighborsRetriever(2), 2)):
        with pytest.raises(ValueError, match=r"(?i)(row|entry|item) 4"):
            retriever.fit(rows[:4]).kneighbors(rows)


def test_wrong_rank_and_channel_count():
    pooler = GeMPooler().fit([np.ones((3, 4, 4))])
    with pytest.raises(ValueError, match="Entry 17: expected 3 dimensions, got 2"):
        pooler.transform([np.ones((3, 4, 4))] * 17 + [np.ones((4, 4))])
    with pytest.raises(ValueError, match="Entry 1: has 5 channels, but 3 were expected"):
        pooler.transform([np.ones((3, 4, 4)), np.ones((5, 4, 4))])
    with pytest.raises(ValueError, match="Entry 0: has 5 channels, but 3 were expected"):
        pooler.transform(np.ones((2, 5, 4, 4)))
    with pytest.raises(ValueError, match="Entry 2: has 5 channels, but 3 were expected"):
        GeMPooler().fit([np.ones((3, 4, 4)), np.ones((3, 4, 4)), np.ones((5, 4, 4))])


def test_empty_input():
    for step in (model(), GeMPooler()):
        with pytest.raises(ValueError, match=r"0 (images|feature maps).*minimum of 1"):
            step.fit([])
    with pytest.raises(ValueError, match="minimum of 1"):
        NearestNeighborsRetriever().fit(np.zeros((0, 3)))
    with pytest.raises(ValueError, match=r"(?i)0 |empty"):
        NearestNeighborsRetriever().fit([])


def test_more_neighbours_than_gallery():
    rows = np.random.default_rng(0).random((5, 3))
    with pytest.raises(ValueError, match=r"7.*5"):
        NearestNeighborsRetriever(7).fit(rows).predict(rows)
    with pytest.raises(ValueError, match=r"6.*5"):
        NearestNeighborsRetriever(2).fit(rows).kneighbors(rows, 6)
    with pytest.raises(ValueError, match=r"5.*4"):
        NearestNeighborsRetriever(2).fit(rows).kneighbors(n_neighbors=5)


def test_box_outside_the_image():
    pipeline = model().fit([picture(0), picture(1)])
    with pytest.raises(
        ValueError, match=r"Entry 1 .*box \(0, 0, 65, 48\) lies outside the image of 64x48 pixels"
    ):
        pipeline.predict([picture(0), ImageCrop(picture(1), (0, 0, 65, 48))])
