"""A small language of conditions on images, which becomes SQLAlchemy expressions and never SQL text."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa

from .._terminal import printable
from ._table import IMAGES

#: What conditions may name: columns, and how they compare.
FIELDS: dict[str, Any] = {
    "path": IMAGES.c.name,
    "label": IMAGES.c.label,
    "taken": IMAGES.c.taken,
    "width": IMAGES.c.width,
    "height": IMAGES.c.height,
    "size": IMAGES.c.size,
    "id": IMAGES.c.id,
}
_NUMBERS = {"width", "height", "size", "id"}
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")|(?P<number>-?\d+(?:\.\d+)?)|(?P<operator><=|>=|!=|<>|=|<|>)"""
    r"""|(?P<mark>[(),])|(?P<word>[A-Za-z_]+))"""
)
_LONGEST, _DEEPEST, _MOST = 10_000, 50, 200


def condition(text: str) -> sa.ColumnElement[bool]:
    """Parse a condition.

    ``label = 'dog'``, ``taken > '2020'``, ``width >= 1000``, ``path like 'holiday/%'``, ``label in ('a', 'b')``,
    ``taken is null``, joined by ``and``, ``or``, ``not`` and parentheses. Texts stand in single or double quotes, a
    quote in a text is doubled; in ``like``, ``%`` stands for anything and ``_`` for one character.

    Parameters
    ----------
    text : str
        The condition; its fields are ``path``, ``label``, ``taken`` (a date and time as text), ``width``, ``height``
        (pixels), ``size`` (bytes) and ``id``.

    Returns
    -------
    expression : sqlalchemy expression
        Of the table of images, with all values bound.

    Raises
    ------
    ValueError
        If it is no condition; the message says where and what was expected.

    Examples
    --------
    >>> from skretrieval.index._filter import condition
    >>> print(condition("label = 'dog' and not width < 100"))
    images.label = :label_1 AND images.width >= :width_1
    """
    if not isinstance(text, str):
        raise ValueError(f"The condition must be a text, got {type(text).__name__}.")
    if len(text) > _LONGEST:
        raise ValueError(f"The condition has {len(text)} characters, more than {_LONGEST}.")
    parser = _Parser(text)
    found = parser.either(0)
    if parser.kind is not None:
        raise parser.unexpected("'and', 'or' or the end")
    return found


class _Parser:
    """Reads a condition from left to right; `kind` and `value` are those of the token that comes next."""

    def __init__(self, text: str):
        self.text, self.place, self.n_comparisons = text, 0, 0
        self.kind: str | None = None
        self.value = ""
        self.step()

    def step(self) -> str:
        """Return the value of the token that comes next, and go on to the one after it."""
        before = self.value
        self.start = self.place
        if not self.text[self.place :].strip():
            self.kind, self.value = None, ""
            return before
        found = _TOKEN.match(self.text, self.place)
        if found is None:
            raise ValueError(
                f"The condition {self.text!r} cannot be read at {self.text[self.place :].strip()!r}."
            )
        self.kind, self.place = found.lastgroup, found.end()
        self.value = found[found.lastgroup or 0]
        if self.kind == "word":
            self.value = self.value.lower()
        return before

    def unexpected(self, wanted: str) -> ValueError:
        """Make the error that says what was expected."""
        found = f"{self.value!r}" if self.kind is not None else "its end"
        return ValueError(f"The condition {self.text!r} has {found} where {wanted} should be.")

    def takes(self, *words: str) -> bool:
        """Go past a word or mark if it comes next."""
        if self.kind in ("word", "mark", "operator") and self.value in words:
            self.step()
            return True
        return False

    def either(self, depth: int) -> sa.ColumnElement[bool]:
        if depth > _DEEPEST:
            raise ValueError(f"The condition has parentheses deeper than {_DEEPEST}.")
        parts = [self.both(depth)]
        while self.takes("or"):
            parts.append(self.both(depth))
        return parts[0] if len(parts) == 1 else sa.or_(*parts)

    def both(self, depth: int) -> sa.ColumnElement[bool]:
        parts = [self.one(depth)]
        while self.takes("and"):
            parts.append(self.one(depth))
        return parts[0] if len(parts) == 1 else sa.and_(*parts)

    def one(self, depth: int) -> sa.ColumnElement[bool]:
        if self.takes("not"):
            return sa.not_(self.one(depth + 1)) if depth < _DEEPEST else self.either(depth + 1)
        if self.takes("("):
            found = self.either(depth + 1)
            if not self.takes(")"):
                raise self.unexpected("')'")
            return found
        return self.comparison()

    def comparison(self) -> sa.ColumnElement[bool]:
        if self.kind != "word" or self.value not in FIELDS:
            raise self.unexpected(f"one of {', '.join(FIELDS)}")
        self.n_comparisons += 1
        if self.n_comparisons > _MOST:
            raise ValueError(f"The condition has more than {_MOST} comparisons.")
        name = self.step()
        field = FIELDS[name]
        if self.takes("is"):
            negated = self.takes("not")
            if not self.takes("null"):
                raise self.unexpected("'null'")
            return field.is_not(None) if negated else field.is_(None)
        negated = self.takes("not")
        if self.takes("like"):
            found = field.like(self.literal(name, text=True))
        elif self.takes("in"):
            if not self.takes("("):
                raise self.unexpected("'('")
            values = [self.literal(name)]
            while self.takes(","):
                values.append(self.literal(name))
            if not self.takes(")"):
                raise self.unexpected("')'")
            found = field.in_(values)
        elif self.kind == "operator" and not negated:
            found = _compared(field, self.step(), self.literal(name))
        else:
            raise self.unexpected("'like' or 'in'" if negated else "a comparison")
        return sa.not_(found) if negated else found

    def literal(self, name: str, text: bool = False) -> Any:
        if self.kind == "text" and (text or name not in _NUMBERS):
            raw = self.step()
            raw = raw[1:-1].replace(raw[0] * 2, raw[0])
            return printable(raw)  # names are stored as they are printed
        if self.kind == "number" and not text:
            raw = self.step()
            if name in _NUMBERS:
                return float(raw) if "." in raw or len(raw) > 18 else int(raw)
            return raw
        raise self.unexpected("a number" if name in _NUMBERS and not text else "a text in quotes")


def _compared(field: Any, operator: str, value: Any) -> sa.ColumnElement[bool]:
    return {
        "=": field == value,
        "!=": field != value,
        "<>": field != value,
        "<": field < value,
        "<=": field <= value,
        ">": field > value,
        ">=": field >= value,
    }[operator]
