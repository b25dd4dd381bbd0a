"""Leave the default setting for a better one only where photographs say so, and enough of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..metrics import randomization_test
from ._evidence import Mates, both_ways, mate_scores

#: Objects with mates, at least: fewer can't speak for a collection, and no paired test says much of them.
MIN_GROUPS = 10
#: Share of the photographs that have a verified mate, at least.
MIN_COVERAGE = 0.5
#: The gain is believed where chance gives it less often. The best of many settings is tested, so it is a strict one.
MAX_P_VALUE = 0.01
#: Gain of the score, at least. Where the default finds nearly all mates, they are too easy to tell settings apart.
MIN_GAIN = 0.02
#: Ranks that count as the first, where a photograph may have mates that nobody has found.
TOLERANCE = {"verified": 3, "given": 1}


@dataclass
class SettingChoice:
    """Which setting was chosen, on what evidence, and why.

    Attributes
    ----------
    chosen : hashable
        The name of the setting.
    default : hashable
        That of the setting to start from.
    reason : str
        Why, in one sentence.
    scores : dict
        Mean score of each setting over the photographs that were asked for a mate; empty without evidence.
    p_value : float
        Of the best setting against the default, one-sided; NaN without a test.
    n_pairs, n_groups : int
        Pairs of different photographs, and the objects they are of.
    coverage : float
        Share of the photographs that have a mate.
    """

    chosen: Any
    default: Any
    reason: str
    scores: dict[Any, float] = field(default_factory=dict)
    p_value: float = float("nan")
    n_pairs: int = 0
    n_groups: int = 0
    coverage: float = 0.0


def choose_setting(
    similarities: Callable[[Any], np.ndarray],
    settings: Iterable[Hashable],
    default: Hashable,
    mates: Mates,
    *,
    asked: np.ndarray | None = None,
    source: Literal["verified", "given"] = "verified",
    random_state: int = 0,
) -> SettingChoice:
    """Choose the setting that finds the mates best, if it is better than the default by more than chance.

    Parameters
    ----------
    similarities : callable
        Takes a setting, gives the ndarray of shape (n, n) of the similarities of the photographs under it.
    settings : iterable of hashable
        Those to choose from.
    default : hashable
        The one to keep unless there is evidence.
    mates : Mates
        Photographs of the same object.
    asked : int ndarray, default=None
        Positions of the photographs whose mates were looked for. None: all.
    source : {"verified", "given"}, default="verified"
        "verified": the mates were found by homographies. These exist of flat and rigid things only, and say nothing of
        the others: a photograph without one asks for what the *default* finds first, so that what the default can do
        for it weighs against a change, and at least half of the photographs must have a mate. "given": a person gave
        pairs, which stand for the collection.
    random_state : int, default=0
        Seed of the test.

    Returns
    -------
    choice : SettingChoice
        With the default where the evidence is too thin.

    Raises
    ------
    ValueError
        If the default is none of the settings.

    Notes
    -----
    The unit of the test (:func:`~skretrieval.metrics.randomization_test`, one-sided) is the object: five photographs
    of one are one witness. The setting is changed where the p-value is below 0.01 and the mean score is higher by at
    least 0.02.

    Examples
    --------
    Twelve objects, of which three photographs each are known; the second setting sees them with less noise:

    >>> import numpy as np
    >>> from skretrieval.model_selection import choose_setting, mates_of
    >>> rng = np.random.default_rng(0)
    >>> objects = np.repeat(rng.normal(size=(12, 8)), 3, axis=0)
    >>> rows = {noise: objects + noise * rng.normal(size=(36, 8)) for noise in (2.0, 0.5)}
    >>> rows = {noise: x / np.linalg.norm(x, axis=1, keepdims=True) for noise, x in rows.items()}
    >>> pairs = np.array([(3 * i + a, 3 * i + b) for i in range(12) for a, b in ((0, 1), (0, 2), (1, 2))])
    >>> choice = choose_setting(lambda noise: rows[noise] @ rows[noise].T, rows, 2.0, mates_of(pairs, 36))
    >>> choice.chosen, choice.n_groups, choice.p_value < 0.01
    (0.5, 12, True)
    """
    settings = list(settings)
    if default not in settings:
        raise ValueError(f"The default {default!r} is none of the {len(settings)} settings.")
    n = len(mates.groups)
    asked = np.arange(n) if asked is None else np.asarray(asked)
    has_mate = mates.has_mate()
    covered = asked[has_mate[asked]]
    choice = SettingChoice(default, default, "", n_pairs=len(mates.pairs))
    choice.n_groups = len(np.unique(mates.groups[covered]))
    choice.coverage = len(covered) / len(asked) if len(asked) else 0.0
    thin = _too_thin(choice, source)
    if choice.n_pairs == 0 or n < 4:
        choice.reason = thin
        return choice
    wanted = both_ways(mates.pairs)
    wanted = wanted[np.isin(wanted[:, 0], asked)]
    if source == "verified":
        wanted = np.concatenate([wanted, _first_found(similarities(default), np.setdiff1d(asked, covered))])
    tolerance = min(TOLERANCE[source], n - 2)
    scores = {setting: mate_scores(similarities(setting), wanted, tolerance) for setting in settings}
    choice.scores = {setting: float(np.nanmean(values)) for setting, values in scores.items()}
    best = max(settings, key=lambda setting: (choice.scores[setting], setting == default))
    if best != default:
        choice.p_value = _p_value(scores[best], scores[default], mates.groups, random_state)
    if thin:
        choice.reason = thin
    elif best == default:
        choice.reason = "no setting finds the mates better than the default"
    elif choice.p_value >= MAX_P_VALUE:
        choice.reason = (
            f"the best setting's gain may be chance (p = {choice.p_value:.3f}, {MAX_P_VALUE} is the limit): "
            "the default stays"
        )
    elif choice.scores[best] - choice.scores[default] < MIN_GAIN:
        choice.reason = (
            f"the best setting finds the mates hardly better, {choice.scores[best]:.3f} against "
            f"{choice.scores[default]:.3f} ({MIN_GAIN} more is the limit): the default stays"
        )
    else:
        choice.chosen = best
        choice.reason = (
            f"it finds the mates better than the default, {choice.scores[best]:.3f} against "
            f"{choice.scores[default]:.3f} (p = {choice.p_value:.4f})"
        )
    return choice


def _too_thin(choice: SettingChoice, source: str) -> str:
    """Say why the evidence does not suffice; an empty text if it does."""
    kind = "verified" if source == "verified" else "given"
    if choice.n_groups < MIN_GROUPS:
        return (
            f"the evidence is too thin: {choice.n_pairs} {kind} pairs of {choice.n_groups} objects, at least "
            f"{MIN_GROUPS} objects are needed: the default stays"
        )
    if source == "verified" and choice.coverage < MIN_COVERAGE:
        return (
            f"the evidence is too thin: {choice.coverage:.0%} of the photographs have a verified mate, at least "
            f"{MIN_COVERAGE:.0%} are needed: the default stays"
        )
    return ""


def _first_found(similar: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return what each of some photographs finds first."""
    rows = similar[asked].copy()
    rows[np.arange(len(asked)), asked] = -np.inf
    return np.column_stack([asked, rows.argmax(axis=1)]).astype(np.int64)


def _p_value(better: np.ndarray, default: np.ndarray, groups: np.ndarray, random_state: int) -> float:
    """Test the sums over objects, so that photographs weigh alike and objects are exchanged as a whole."""
    known = ~np.isnan(better)
    _, unit = np.unique(groups[known], return_inverse=True)
    first, second = (np.bincount(unit, weights=values[known]) for values in (better, default))
    return randomization_test(first, second, random_state=random_state, alternative="greater").p_value
