"""Choose layer, pooler, whitening and size for a collection, by photographs of it that show the same object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state

from .._geometry import LocalFeatures, describe_points, import_cv2
from ..extraction import check_images, read_image, resize_longest
from ..metrics import ap_from_relevance
from ..model_selection import (
    Mates,
    SettingChoice,
    candidate_pairs,
    choose_setting,
    mates_of,
    mates_of_given,
    verified_pairs,
)
from ._tuning_grid import (
    IMAGE_SIZES,
    LAYERS,
    Setting,
    default_extractor,
    default_of,
    make_grid,
    pipeline_of,
    pooled_descriptors,
    similarities_of,
)

_LOCAL_SIZE = 512  # pixels of the longest side that local features are found at
_ALL_PAIRS = 150  # photographs up to which every pair is looked at
_ASKED = 300  # photographs, at most, whose mates are looked for
_CANDIDATES = 60  # for each of them


@dataclass
class Tuning:
    """What tuning found.

    Attributes
    ----------
    pipeline : Pipeline
        Unfitted, of the chosen setting.
    choice : SettingChoice
        The setting, the evidence and the reason.
    settings : list of Setting
        All of the grid.
    true_scores : dict of Setting to float
        Leave-one-out mAP of each setting; empty without labels.
    n_images : int
        Photographs looked at.
    failed : dict of int to str
        Photographs that could not be read, by position in `images`, and why.
    """

    pipeline: Pipeline
    choice: SettingChoice
    settings: list[Setting]
    true_scores: dict[Setting, float] = field(default_factory=dict)
    n_images: int = 0
    failed: dict[int, str] = field(default_factory=dict)


def tune(
    images: Sequence[Any],
    *,
    pairs: ArrayLike | None = None,
    verify: bool = True,
    labels: ArrayLike | None = None,
    extractor: Any = None,
    layers: Sequence[str] | None = None,
    image_sizes: Sequence[int] = IMAGE_SIZES,
    n_images: int = 2000,
    random_state: int = 0,
    n_jobs: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Tuning:
    """Choose among 72 settings of a network the one that finds photographs of the same object best.

    Without `pairs` the evidence is pairs of different photographs that a homography of local features verifies. They
    exist of flat and rigid things; of others hardly any, and then the default stays. It is left only for a gain that a
    paired test over objects finds significant.

    Parameters
    ----------
    images : sequence of path, PIL.Image.Image, uint8 ndarray or ImageCrop
        The photographs.
    pairs : array-like of shape (m, 2), default=None
        Positions of photographs of the same object, chosen by hand; 20 of different objects do. Where the test on
        them decides nothing, verified pairs may, if these do not speak against it.
    verify : bool, default=True
        Whether local features may verify pairs. False looks at given pairs only.
    labels : array-like of shape (n,), default=None
        The objects, where they are known: only to report the true mAP of each setting.
    extractor : ConvFeatureExtractor, default=None
        Its `layers` and `image_size` are chosen. None: EfficientNet-Lite0 with ImageNet's weights.
    layers : sequence of str, default=None
        Layers to choose among, the default's last. None: the 112-channel, the 320-channel and the last layer of
        EfficientNet-Lite0; needed for another extractor.
    image_sizes : sequence of int, default=(320, 512)
        Longest sides in pixels.
    n_images : int, default=2000
        Photographs looked at, at most, drawn at random; those of `pairs` are among them.
    random_state : int, default=0
        Seed of the draw and of the test.
    n_jobs : int or None, default=None
        Threads for local features, as joblib has them.
    say : callable or None, default=None
        Takes a line on what is being done.

    Returns
    -------
    tuning : Tuning
        With the Pipeline of the chosen setting.

    Raises
    ------
    ValueError
        If there are fewer than two photographs that can be read, `pairs` names others than those of `images` or is
        missing with ``verify=False``, or `layers` is missing for another extractor.
    """
    say = say or (lambda line: None)
    items = check_images(images)
    if extractor is None:
        extractor, layers = default_extractor(), LAYERS if layers is None else layers
    if layers is None or len(layers) < 2:
        raise ValueError(f"layers={layers!r}: name at least two layers of the extractor to choose among.")
    given = _check_pairs(pairs, len(items))
    if given is None and not verify:
        raise ValueError("verify=False needs pairs: without either there is no evidence.")
    sample = _sample(len(items), n_images, given, random_state)
    pooled, failed = _describe([items[i] for i in sample], extractor, layers, image_sizes, say)
    whole = np.setdiff1d(np.arange(len(sample)), list(failed))
    if len(whole) < 2:
        raise ValueError(f"{len(whole)} of {len(sample)} photographs can be read; tuning needs at least two.")
    pooled = {key: rows[whole] for key, rows in pooled.items()}
    positions = sample[whole]

    def similarities(setting: Setting) -> np.ndarray:
        return similarities_of(pooled[setting.layer, setting.pooler, setting.image_size], setting.whitening)

    settings, default = make_grid(layers, image_sizes), default_of(layers, image_sizes)
    choice = None
    if given is not None:
        inside = np.isin(given, positions).all(axis=1)
        mates = mates_of_given(np.searchsorted(positions, given[inside]), len(positions))
        say(f"comparing {len(settings)} settings by {len(mates.pairs)} given pairs")
        choice = choose_setting(
            similarities, settings, default, mates, source="given", random_state=random_state
        )
    if choice is None or (verify and choice.chosen == default):
        asked = _asked(len(positions), random_state)
        rankings = (_nearest(similarities(setting), asked) for setting in settings)
        mates = _verify([items[i] for i in positions], asked, rankings, n_jobs, say)
        say(f"comparing {len(settings)} settings by {len(mates.pairs)} verified pairs")
        verified = choose_setting(
            similarities, settings, default, mates, asked=asked, random_state=random_state
        )
        choice = verified if choice is None else _either(choice, verified)
    true = {}
    if labels is not None:
        known = np.asarray(labels)[positions]
        true = {setting: _leave_one_out(similarities(setting), known) for setting in settings}
    reasons = {int(sample[place]): why for place, why in failed.items()}
    return Tuning(pipeline_of(choice.chosen, extractor), choice, settings, true, len(positions), reasons)


def _either(given: SettingChoice, verified: SettingChoice) -> SettingChoice:
    """Let verified pairs decide where given ones do not suffice, unless the given ones speak against it."""
    if verified.chosen == verified.default:
        return given
    if given.scores and given.scores[verified.chosen] < given.scores[given.default]:
        given.reason += f"; verified pairs speak for {verified.chosen}, but the given ones do not"
        return given
    verified.reason = (
        f"by {verified.n_pairs} verified pairs, as the given ones do not decide, {verified.reason}"
    )
    return verified


def _check_pairs(pairs: ArrayLike | None, n_images: int) -> np.ndarray | None:
    if pairs is None:
        return None
    given = np.asarray(pairs)
    if given.ndim != 2 or given.shape[1] != 2 or given.dtype.kind not in "iu" or not len(given):
        raise ValueError(f"pairs must be integers of shape (m, 2), m at least 1, got shape {given.shape}.")
    if given.min() < 0 or given.max() >= n_images:
        raise ValueError(f"pairs go from {given.min()} to {given.max()}; there are {n_images} images.")
    same = np.flatnonzero(given[:, 0] == given[:, 1])
    if len(same):
        raise ValueError(f"pairs: row {same[0]} names photograph {given[same[0], 0]} twice.")
    return given.astype(np.int64)


def _sample(n: int, n_images: int, given: np.ndarray | None, random_state: int) -> np.ndarray:
    """Draw photographs; those of given pairs come first."""
    if n <= n_images:
        return np.arange(n)
    drawn = check_random_state(random_state).permutation(n)
    if given is not None:
        drawn = np.concatenate([drawn[np.isin(drawn, given)], drawn[~np.isin(drawn, given)]])
        n_images = max(n_images, len(np.unique(given)))
    return np.sort(drawn[:n_images])


def _describe(
    images: list[Any], extractor: Any, layers: Sequence[str], sizes: Sequence[int], say: Callable[[str], None]
) -> tuple[dict[tuple[str, str, int], np.ndarray], dict[int, str]]:
    pooled: dict[tuple[str, str, int], np.ndarray] = {}
    failed: dict[int, str] = {}
    for size in sizes:
        say(f"describing {len(images)} photographs at {size} pixels")
        rows, unreadable = pooled_descriptors(images, extractor, layers, size)
        pooled |= {(layer, pooler, size): values for (layer, pooler), values in rows.items()}
        failed |= unreadable
    return pooled, failed


def _asked(n: int, random_state: int) -> np.ndarray:
    """Draw the photographs whose mates are looked for."""
    if n <= _ASKED:
        return np.arange(n)
    return np.sort(check_random_state(random_state).permutation(n)[:_ASKED])


def _nearest(similar: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return what each photograph finds, itself left out, best first."""
    rows = -similar[asked]
    rows[np.arange(len(asked)), asked] = np.inf
    k = min(_CANDIDATES, len(similar) - 1)
    return np.argsort(rows, axis=1, kind="stable")[:, :k]


def _verify(
    images: list[Any],
    asked: np.ndarray,
    rankings: Any,
    n_jobs: int | None,
    say: Callable[[str], None],
) -> Mates:
    """Look for pairs that a homography joins; without OpenCV there are none, and that is said."""
    n = len(images)
    try:
        import_cv2()
    except ImportError as error:
        say(f"{error} Without it pairs cannot be verified, and the default stays unless pairs are given.")
        return mates_of(np.zeros((0, 2), np.int64), n)
    if n <= _ALL_PAIRS:
        pairs = np.column_stack(np.triu_indices(n, 1))
    else:
        pairs = candidate_pairs(rankings, asked, _CANDIDATES)
    involved = np.unique(pairs)
    say(f"finding local features of {len(involved)} photographs")
    found = Parallel(n_jobs=n_jobs, prefer="threads")(
        delayed(_local_features)(images[place], place) for place in involved.tolist()
    )
    features = dict(zip(involved.tolist(), found))
    say(f"verifying {len(pairs)} pairs")
    return mates_of(verified_pairs(features, pairs, n_jobs=n_jobs, say=say), n)


def _local_features(item: Any, position: int) -> LocalFeatures:
    image = read_image(item, position=position, draft=2 * _LOCAL_SIZE)
    return describe_points(resize_longest(image, min(_LOCAL_SIZE, max(image.size))))


def _leave_one_out(similar: np.ndarray, labels: np.ndarray) -> float:
    """Return the mAP of photographs that each search the others; those without a mate don't count."""
    order = np.argsort(-similar, axis=1, kind="stable")
    others = order[order != np.arange(len(labels))[:, np.newaxis]].reshape(len(labels), -1)
    relevant = labels[others] == labels[:, np.newaxis]
    has_mate = relevant.any(axis=1)
    return float(ap_from_relevance(relevant[has_mate]).mean()) if has_mate.any() else float("nan")
