"""Tuning: which setting it chooses, on what evidence."""

import numpy as np
import pytest
from fixtures.flat_photographs import photographs

from skretrieval.evaluation import Setting, tune
from skretrieval.evaluation import _tune as module
from skretrieval.evaluation._tuning_grid import LAYERS, pooled_descriptors, similarities_of
from skretrieval.extraction import ConvFeatureExtractor
from skretrieval.model_selection import SettingChoice

SMALL = {"image_sizes": (48, 64), "layers": LAYERS}


def network(**params):
    return ConvFeatureExtractor("timm:tf_efficientnet_lite0", weights=None, random_state=0, **params)


@pytest.fixture(scope="module")
def flat():
    return photographs(12, 3)


@pytest.fixture(scope="module")
def verified(flat):
    pytest.importorskip("cv2")
    lines = []
    images, labels = flat
    return tune(images, labels=labels, extractor=network(), say=lines.append, **SMALL), lines


def test_verified_pairs_are_of_one_object(verified, flat):
    tuning, lines = verified
    assert tuning.choice.n_groups == 12
    assert tuning.choice.n_pairs >= 24
    assert tuning.choice.coverage > 0.9
    assert any("verifying" in line for line in lines)


def test_every_setting_has_its_scores(verified):
    tuning, _ = verified
    assert len(set(tuning.settings)) == 72
    assert set(tuning.choice.scores) == set(tuning.true_scores) == set(tuning.settings)
    evidence = [tuning.choice.scores[setting] for setting in tuning.settings]
    true = [tuning.true_scores[setting] for setting in tuning.settings]
    assert np.corrcoef(evidence, true)[0, 1] > 0.8
    assert tuning.true_scores[tuning.choice.chosen] >= tuning.true_scores[tuning.choice.default] - 0.02


def test_the_pipeline_is_that_of_the_setting(verified, flat):
    tuning, _ = verified
    chosen, images = tuning.choice.chosen, flat[0]
    pipeline = tuning.pipeline
    assert pipeline["extractor"].layers == chosen.layer
    assert pipeline["extractor"].image_size == chosen.image_size
    assert ("whitening" in pipeline.named_steps) == (chosen.whitening != "none")
    found = pipeline.fit(images).predict(images)
    assert (found[:, 0] == np.arange(len(images))).all()


@pytest.mark.parametrize("whitening", ["none", "shrunk", "full"])
def test_what_is_compared_is_what_the_pipeline_gives(flat, whitening):
    images = flat[0]
    rows, failed = pooled_descriptors(images, network(), LAYERS, 64)
    assert failed == {}
    setting = Setting("blocks.6", "grmac", whitening, 64)
    with pytest.warns() if whitening == "full" else _nothing():
        described = module.pipeline_of(setting, network()).fit(images)[:-1].transform(images)
    np.testing.assert_allclose(
        similarities_of(rows["blocks.6", "grmac"], whitening), described @ described.T, atol=1e-4
    )


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *args):
        return None


@pytest.fixture
def without_opencv(monkeypatch):
    def missing():
        raise ImportError("install scikit-retrieval[opencv].")

    monkeypatch.setattr(module, "import_cv2", missing)


@pytest.mark.usefixtures("without_opencv")
def test_without_opencv_it_says_so_and_keeps_the_default(flat):
    lines = []
    tuning = tune(flat[0][:6], extractor=network(), say=lines.append, **SMALL)
    assert tuning.choice.chosen == tuning.choice.default == Setting("bn2", "grmac", "none", 64)
    assert "too thin" in tuning.choice.reason
    assert any("[opencv]" in line and "default stays" in line for line in lines)


@pytest.mark.usefixtures("without_opencv")
def test_given_pairs_need_no_opencv(flat):
    images = flat[0]
    pairs = [(3 * number, 3 * number + 2) for number in range(12)]
    tuning = tune(images, pairs=pairs, extractor=network(), **SMALL)
    assert tuning.choice.n_pairs == tuning.choice.n_groups == 12
    assert tuning.choice.coverage == 24 / 36
    assert not tuning.true_scores


def choice(chosen, scores):
    return SettingChoice(chosen, "default", "why", scores=scores, n_pairs=30)


def test_verified_pairs_decide_where_given_ones_do_not():
    given = choice("default", {"default": 0.5, "other": 0.6})
    verified = choice("other", {"default": 0.5, "other": 0.9})
    found = module._either(given, verified)
    assert found is verified
    assert found.reason == "by 30 verified pairs, as the given ones do not decide, why"
    assert module._either(given, choice("default", {})) is given


def test_verified_pairs_do_not_overrule_given_ones():
    given = choice("default", {"default": 0.6, "other": 0.5})
    found = module._either(given, choice("other", {"default": 0.5, "other": 0.9}))
    assert found.chosen == "default"
    assert "verified pairs speak for other, but the given ones do not" in found.reason


def test_photographs_of_given_pairs_are_in_the_sample(flat):
    images = flat[0]
    pairs = [(0, 2), (33, 35)]
    tuning = tune(images, pairs=pairs, verify=False, extractor=network(), n_images=5, **SMALL)
    assert tuning.n_images == 5
    assert tuning.choice.n_pairs == 2


def test_an_unreadable_photograph_is_named_and_left_out(flat, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photograph")
    tuning = tune(
        [flat[0][0], str(broken), *flat[0][1:5]], pairs=[(0, 2)], verify=False, extractor=network(), **SMALL
    )
    assert list(tuning.failed) == [1]
    assert tuning.n_images == 5
    assert tuning.choice.n_pairs == 1


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(0, 99)], "pairs go from 0 to 99; there are 6 images"),
        ([(2, 2)], "row 0 names photograph 2 twice"),
        ([0, 1], "of shape \\(m, 2\\)"),
    ],
)
def test_wrong_pairs_are_errors(flat, pairs, message):
    with pytest.raises(ValueError, match=message):
        tune(flat[0][:6], pairs=pairs, extractor=network(), **SMALL)


def test_layers_of_another_extractor_must_be_named(flat):
    with pytest.raises(ValueError, match="name at least two layers"):
        tune(flat[0][:6], extractor=network())


def test_nothing_to_go_by_is_an_error(flat):
    with pytest.raises(ValueError, match="verify=False needs pairs"):
        tune(flat[0][:6], verify=False, extractor=network(), **SMALL)
