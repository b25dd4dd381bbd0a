"""Ways of calling that still work for one version, with a FutureWarning."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

_INSIDE = ("skretrieval", "sklearn", "torch")


def warn_caller(message: str, category: type[Warning] = FutureWarning) -> None:
    """Raise a warning that points to the line outside of this package and those it runs in that called."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def deprecate_positional(*names: str) -> Callable:
    """Decorate an ``__init__`` whose keyword-only parameters `names` could be given by position before.

    They still can, in that order, with a FutureWarning. The signature is that of the decorated function.

    Parameters
    ----------
    *names : str
        In the order in which they followed the parameters that may still be given by position.
    """

    def decorate(init: Callable) -> Callable:
        kinds = [parameter.kind for parameter in inspect.signature(init).parameters.values()]
        n_positional = kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD)

        @wraps(init)
        def initialise(*args: Any, **kwargs: Any) -> None:
            late = args[n_positional:]
            if not late or len(late) > len(names):  # too many are the error that they always were
                return init(*args, **kwargs)
            given = dict(zip(names, late, strict=False))
            warn_caller(
                f"{type(args[0]).__name__}: pass {', '.join(given)} by name; from version 0.2 on it will be an error "
                "to give them by position."
            )
            return init(*args[:n_positional], **given, **kwargs)

        return initialise

    return decorate
