"""A string that cannot be printed, pickled or serialised. No I/O."""

from __future__ import annotations

from typing import NoReturn


class Secret:
    """Holds one secret value. Only `reveal()` returns it; printing shows `Secret(…)`, and pickling raises TypeError."""

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """Return the value. Call it only in the expression that passes the secret to its one receiver."""
        return self.__value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be serialised")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.__value == other.reveal()

    def __hash__(self) -> int:
        return hash(self.__value)


def why_no_token(text: str) -> str:
    """Return why a text cannot be a token in a request's header; empty if it can. HTTP libraries print such a text in their error."""
    is_token = text.isascii() and text.isprintable() and " " not in text
    return "" if is_token else "has a space, a line break or another character that no token has; set it to the token alone"
