"""Removes secrets from a stream of bytes: their exact values and the forms in which programs print them. No I/O.

Known forms: as is; in UTF-16; URL-encoded; base64, standard and URL-safe, also inside a longer text and over several lines; hex;
escaped as in JSON (also twice), in Python's repr, in a shell word and in libpq's password file; each long line of a multi-line secret.
Secrets shorter than four bytes are ignored: removing them would leave no log, and hide nothing. Secrets that a job transforms in its own
way are not found: redaction guards against accidents.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator
from itertools import accumulate, chain
from typing import NamedTuple, Self
from urllib.parse import quote, quote_plus

REDACTION_MARK = b"[redacted]"
MIN_SECRET_BYTES = 4
"""Secrets with fewer bytes are not redacted."""
HEAD_BYTES = 8
"""Number of bytes of each form that are compared first, for speed."""
MAX_LEARNT_SECRETS = 500
"""Of the secrets learnt while the stream runs that are not kept, only this many are remembered. Searching for this many costs about 25 ms
for 64 KB.
"""
MIN_LINE_BYTES = 16
"""A line of a multi-line secret counts as a secret from this many bytes on."""
MIN_LINE_OF_BASE64 = 16
"""Characters of base64 that precede a line break within it. Programs write lines of 60 to 76."""
# The look-ahead is only for speed: it fails at once wherever no line break begins.
_WITHIN_BASE64 = rb"(?=[\r\n\\])(?<=[\w+/-]{%d})" % MIN_LINE_OF_BASE64
LINE_BREAK = re.compile(_WITHIN_BASE64 + rb"(?:\r?\n[ \t]{0,40}|(?:\\r)?\\n)(?=[\w+/-])", re.ASCII)
"""Matches a line break within base64, with the next line's indentation (as in YAML), or as escaped by JSON and shells."""
BEGUN_LINE_BREAK = re.compile(_WITHIN_BASE64 + rb"(?:\r|\r?\n[ \t]{0,40}|\\(?:r(?:\\n?)?|n)?)\Z", re.ASCII)
"""Matches what may become a LINE_BREAK when more of the text arrives."""
MAX_LINE_BREAK = 42
"""Bytes of the longest LINE_BREAK."""


class Forms(NamedTuple):
    texts: tuple[bytes, ...]
    """Sorted."""
    longest: int
    heads: frozenset[bytes]
    """The first bytes of each form, up to HEAD_BYTES, and every prefix of them."""

    @classmethod
    def of(cls, texts: Iterable[bytes]) -> Self:
        found = tuple(sorted(set(texts)))
        heads = frozenset(text[:length] for text in found for length in range(1, HEAD_BYTES + 1))
        return cls(found, max(map(len, found), default=0), heads)

    def matches(self, text: bytes) -> Iterator[tuple[int, int]]:
        """Yield the start and end of each occurrence."""
        # Form by form, without a regular expression of all: compiling that takes up to a second.
        for form in self.texts:
            start = text.find(form)
            while start >= 0:
                yield start, start + len(form)
                start = text.find(form, start + 1)

    def undecided_start(self, text: bytes) -> int:
        """Return the first position at which a still incomplete form may begin; the text's length if there is none."""
        for start in range(max(0, len(text) - self.longest + 1), len(text)):
            if text[start : start + HEAD_BYTES] not in self.heads:
                continue
            tail = text[start:]
            # If any form begins with the tail, the first form that sorts after the tail does. A form that equals the tail is complete.
            index = bisect_left(self.texts, tail)
            while index < len(self.texts) and self.texts[index] == tail:
                index += 1
            if index < len(self.texts) and self.texts[index].startswith(tail):
                return start
        return len(text)


NO_FORMS = Forms.of(())


class Redactor:
    """Redacts one stream. The output does not depend on how the input is cut into chunks.

    Secrets may be learnt while `feed` runs in another thread; `feed` and `flush` must follow each other.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = tuple(secrets)
        self._learnt: dict[str, frozenset[str]] = {}
        """By secret, what it belongs to: two credentials may have the same password. Replaced by each `learn`, never changed."""
        self._search = SecretSearch({}, NO_FORMS, NO_FORMS)
        """How to find the secrets of the newest search. Replaced, never changed: `redact` may run in another thread than `feed`."""
        self._before = b""
        """The last bytes before `_held`, which show whether a line break is within base64."""
        self._held = b""
        self._covered = 0
        # The number of bytes at the start of `_held` that belong to a match whose mark is already written.

    def learn(self, secrets: Iterable[str], *, about: str = "", kept: Collection[str] = ()) -> None:
        """Redact these secrets too, from the next bytes on. Takes microseconds.

        `about`: what they belong to. Secrets about nothing ("") and about what is in `kept` stay; of the others, only the newest
        MAX_LEARNT_SECRETS are remembered.
        """
        stay = {"", *kept}
        new = {secret: (self._learnt.get(secret, frozenset()) & stay) | {about} for secret in secrets}
        learnt = {secret: owners for secret, owners in self._learnt.items() if secret not in new} | new
        others = [secret for secret, owners in learnt.items() if stay.isdisjoint(owners)]
        forgotten = set(others[:-MAX_LEARNT_SECRETS])
        self._learnt = {secret: owners for secret, owners in learnt.items() if secret not in forgotten}

    def feed(self, chunk: bytes) -> bytes:
        """Return the redacted bytes that are final. Bytes that may be the start of a secret are held back until more arrive."""
        self._search = self._search.for_secrets((*self._secrets, *self._learnt))
        return self._redact(self._held + chunk, is_end=False)

    def flush(self) -> bytes:
        """Return the bytes that were held back, redacted. Call it when the stream has ended."""
        return self._redact(self._held, is_end=True) if self._held else b""

    def redact(self, text: str) -> str:
        """Return a text that is not part of the stream, redacted."""
        other = Redactor((*self._secrets, *self._learnt))
        other._search = self._search = self._search.for_secrets(other._secrets)
        return (other.feed(text.encode()) + other.flush()).decode("utf-8", "replace")

    def _redact(self, text: bytes, *, is_end: bool) -> bytes:
        """Redact and return the part of the text that is decided, and hold the rest back. Overlapping matches become one mark."""
        unwrapped, end = Unwrapped.of(text, before=self._before), len(text)
        if not is_end:
            end = min(self._search.forms.undecided_start(text), unwrapped.undecided_start(self._search.base64_forms))
        matches = [*self._search.forms.matches(text), *(unwrapped.matches(self._search.base64_forms) if unwrapped.breaks else ())]
        out: list[bytes] = []
        at, covered = 0, self._covered
        for start, stop in sorted(match for match in matches if match[0] < end):
            if start >= covered:
                out += (text[max(at, covered) : start], REDACTION_MARK)
            at, covered = start, max(covered, stop)
        out.append(text[max(at, covered) : end])
        self._held, self._covered = text[end:], max(0, covered - end)
        self._before = (self._before + text[:end])[-MIN_LINE_OF_BASE64:]
        return b"".join(out)


class Unwrapped(NamedTuple):
    """A text without the line breaks that base64 may contain, and the positions of the breaks."""

    text: bytes
    breaks: tuple[int, ...]
    """The positions in `text` at which breaks were removed, in order."""
    left_out: tuple[int, ...]
    """How many bytes were removed before each break, and before the text's end."""
    original_length: int

    @classmethod
    def of(cls, text: bytes, *, before: bytes) -> Self:
        """Remove the line breaks from a text, and any beginning of a line break at its end. `before` precedes the text."""
        whole, offset = before + text, len(before)
        begun = BEGUN_LINE_BREAK.search(whole, max(offset, len(whole) - MAX_LINE_BREAK))
        end = begun.start() if begun else len(whole)
        spans = [(found.start() - offset, found.end() - offset) for found in LINE_BREAK.finditer(whole, offset, end)]
        edges = (0, *chain.from_iterable(spans), end - offset)
        left_out = (0, *accumulate(stop - start for start, stop in spans))
        return cls(
            text=b"".join(text[start:stop] for start, stop in zip(edges[::2], edges[1::2], strict=True)),
            breaks=tuple(start - before for (start, _), before in zip(spans, left_out, strict=False)),
            left_out=left_out,
            original_length=len(text),
        )

    def matches(self, forms: Forms) -> Iterator[tuple[int, int]]:
        """Yield the start and end of each occurrence of a form in the original."""
        return ((self._original(start), self._original(stop - 1) + 1) for start, stop in forms.matches(self.text))

    def undecided_start(self, forms: Forms) -> int:
        """Return the position in the original at which a still incomplete form may begin; the original's length if there is none."""
        start = forms.undecided_start(self.text)
        return self._original(start) if start < len(self.text) else self.original_length

    def _original(self, position: int) -> int:
        return position + self.left_out[bisect_right(self.breaks, position)]


class SecretSearch(NamedTuple):
    """The forms of some secrets, ready to be looked for."""

    by_secret: dict[str, SecretForms]
    forms: Forms
    base64_forms: Forms

    def for_secrets(self, secrets: Collection[str]) -> Self:
        """Return the search for exactly these secrets. Only new ones cost time: a job can have one learnt with each request that it makes."""
        if set(secrets) == self.by_secret.keys():
            return self
        known = {secret: self.by_secret[secret] if secret in self.by_secret else forms_of(secret) for secret in secrets}
        exact, base64_forms = (frozenset(chain.from_iterable(each[kind] for each in known.values())) for kind in (0, 1))
        return type(self)(known, Forms.of(exact | base64_forms), Forms.of(base64_forms))


class SecretForms(NamedTuple):
    """The forms in which a secret is redacted."""

    exact: frozenset[bytes]
    base64: frozenset[bytes]
    """Forms that may also be spread over several lines."""


def forms_of(secret: str) -> SecretForms:
    """Return every form of a secret that is redacted; none for a secret that is too short."""
    raw = secret.encode("utf-8", "surrogateescape")
    if len(raw) < MIN_SECRET_BYTES:
        return SecretForms(frozenset(), frozenset())
    urls = [quote(raw), quote(raw, safe=""), quote_plus(raw), quote(raw, safe="!*'()~")]
    as_json = json.dumps(secret)[1:-1]
    escaped = [
        as_json,
        re.sub(r"\\u[0-9a-f]{4}", lambda code: f"\\u{code[0][2:].upper()}", as_json),
        json.dumps(secret, ensure_ascii=False)[1:-1],
    ]
    texts = (
        *urls,
        *(re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), url) for url in urls),
        *escaped,
        *(text.replace("/", "\\/") for text in escaped),
        *(json.dumps(text, ensure_ascii=False)[1:-1] for text in escaped),
        repr(secret)[1:-1],
        repr(raw)[2:-1],
        secret.replace("'", "'\\''"),
        shlex.quote(secret).strip("'"),
        # The form in a line of libpq's password file.
        secret.replace("\\", "\\\\").replace(":", "\\:"),
        *(line.strip() for line in secret.splitlines() if len(line.strip()) >= MIN_LINE_BYTES),
    )
    exact = {
        raw,
        raw.hex().encode(),
        raw.hex().upper().encode(),
        *(secret.encode(name, "surrogatepass") for name in ("utf-16-le", "utf-16-be")),
    }
    exact.update(text.encode("utf-8", "surrogateescape") for text in texts)
    return SecretForms(*(frozenset(form for form in forms if len(form) >= MIN_SECRET_BYTES) for forms in (exact, _base64_forms(raw))))


def _base64_forms(raw: bytes) -> Iterator[bytes]:
    """Yield, for each of the three possible alignments, the characters that every base64 text with the secret at this alignment contains."""
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + raw)
        # Leave out characters that also encode bits of neighbouring bytes: they differ from text to text.
        inner = text[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))
