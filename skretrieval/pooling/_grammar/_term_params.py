"""The parameters of the grammar's terms: which a term has, and how nested names reach them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

# How many arguments of a term are data: maps; maps and spatial weights; height and width; maps, boxes and weights.
_N_DATA = {"spatial": 1, "channel": 2, "regions": 2, "reduce": 3}
_PARAMS = {
    "spatial": "spatial_params",
    "channel": "channel_params",
    "regions": "region_params",
    "reduce": "reduce_params",
}


def term_defaults(kind: str, function: Callable) -> tuple[dict[str, Any], bool]:
    """Return the parameters of a term.

    Parameters
    ----------
    kind : {"spatial", "channel", "regions", "reduce"}
        Which of the four it is.
    function : callable
        The term.

    Returns
    -------
    defaults : dict
        Names to defaults; ``inspect.Parameter.empty`` where a parameter has none.
    is_open : bool
        Whether it takes others, too: it has ``**kwargs``, or a signature that cannot be read.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return {}, True
    data = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    n_data = 0
    while n_data < min(len(parameters), _N_DATA[kind]) and parameters[n_data].kind in data:
        n_data += 1
    named = {
        parameter.name: parameter.default
        for parameter in parameters[n_data:]
        if parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    }
    return named, any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)


class TermParameters:
    """Nested names for the parameters of the terms: ``reduce_params__p`` is ``reduce_params["p"]``.

    To be named before the estimator, which has the parameters ``spatial``, ``channel``, ``regions``, ``reduce`` and
    any of ``spatial_params``, ``channel_params``, ``region_params``, ``reduce_params``, and gives ``_registries``.
    """

    _registries: Mapping[str, Mapping[str, Callable]]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, those of the terms as ``reduce_params__p``.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the parameters of the terms: those that are set, and those that have a default.

        Returns
        -------
        params : dict
            Names to values.
        """
        params = super().get_params(deep=deep)  # type: ignore[misc]
        if deep:
            for kind, name in self._own_params().items():
                defaults, _ = self._term_defaults(kind)
                given = params[name] if isinstance(params[name], dict) else {}
                for parameter, value in {**defaults, **given}.items():
                    if value is not inspect.Parameter.empty:
                        params[f"{name}__{parameter}"] = value
        return params

    def set_params(self, **params: Any) -> Any:
        """Set parameters; those of the terms are named as in :meth:`get_params`.

        A dict that was given is not changed: a new one takes its place. Terms are set before their parameters.

        Parameters
        ----------
        **params : dict
            Names to values.

        Returns
        -------
        self : object
            The estimator.

        Raises
        ------
        ValueError
            If a term has no parameter of that name; the message lists those it has.
        """
        nested: dict[str, dict[str, Any]] = {}
        plain = {}
        for key, value in params.items():
            name, is_nested, parameter = key.partition("__")
            if is_nested and name in self._own_params().values():
                nested.setdefault(name, {})[parameter] = value
            else:
                plain[key] = value
        super().set_params(**plain)  # type: ignore[misc]
        for kind, name in self._own_params().items():
            if name in nested:
                self._check_term(kind, nested[name])
                setattr(self, name, {**(getattr(self, name) or {}), **nested[name]})
        return self

    def _own_params(self) -> dict[str, str]:
        """Return the kinds of terms whose parameters the estimator takes as a dict, with the dict's name."""
        own = self._get_param_names()  # type: ignore[attr-defined]
        return {kind: name for kind, name in _PARAMS.items() if name in own}

    def _term_defaults(self, kind: str) -> tuple[dict[str, Any], bool]:
        """Return the parameters of the chosen term as :func:`term_defaults` does; none if there is no such term."""
        term = getattr(self, kind)
        function = self._registries[kind].get(term) if isinstance(term, str) else term
        return term_defaults(kind, function) if callable(function) else ({}, False)

    def _check_term(self, kind: str, given: Mapping[str, Any]) -> None:
        """Raise a ValueError if the chosen term does not take these parameters."""
        defaults, is_open = self._term_defaults(kind)
        unknown = sorted(set(given) - set(defaults))
        if unknown and not is_open:
            valid = ", ".join(defaults) or "none"
            raise ValueError(
                f"{_PARAMS[kind]}: {kind}={getattr(self, kind)!r} has no parameter {', '.join(unknown)}. Valid "
                f"parameters: {valid}."
            )

    def _check_term_parameters(self) -> None:
        """Raise a ValueError if a term does not take its parameters."""
        for kind, name in self._own_params().items():
            self._check_term(kind, getattr(self, name) or {})
