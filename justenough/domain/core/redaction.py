"""Takes secrets out of a stream of bytes: their exact values and the forms in which programs print them. No I/O.

Known forms: as is; URL-encoded; base64, standard and URL-safe, also inside a longer text; hex; escaped as in JSON, in Python's
repr, in a shell's word and in libpq's password file; each long line of a secret of several lines. Secrets shorter than four bytes are
ignored: taking them out would leave no log, and hide nothing. What a job transforms in its own way is not found: redaction guards against
accidents.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

REDACTION_MARK = b"[redacted]"
MIN_SECRET_BYTES = 4
"""Bytes of the shortest secret that is looked for."""
HEAD_BYTES = 8
"""Bytes that are compared first, to be quick."""
MAX_LEARNT_SECRETS = 100
"""Secrets that one stream remembers of those it learnt while it ran: older ones are dead by then, or the job asks for very many at once."""
MIN_LINE_BYTES = 16
"""Bytes from which one line of a secret is a secret of its own."""

_PERCENT = re.compile(r"%[0-9A-F]{2}")


class Redactor:
    """A stream's state. Cut the input as you like: what comes out is the same."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = tuple(secrets)
        self._later: deque[str] = deque(maxlen=MAX_LEARNT_SECRETS)
        # At the first bytes: before them more is often learnt, and many streams have none.
        self._prepared = False
        self._held = b""
        self._covered = 0
        # How many bytes at the start of `_held` belong to a find whose mark is already out.

    def learn(self, secrets: Iterable[str]) -> None:
        """Look for these too, from the next bytes on; of all that was learnt later than the stream began, the newest are remembered."""
        self._later.extend(secrets)
        self._prepared = False

    def feed(self, chunk: bytes) -> bytes:
        """Return what is decided by now. What may be the start of a secret is held back until more comes."""
        if not self._prepared:
            self._prepare()
        held = self._held + chunk
        return self._redact(held, self._undecided_start(held))

    def flush(self) -> bytes:
        """Return what was held back: the stream has ended."""
        return self._redact(self._held, len(self._held)) if self._held else b""

    def _prepare(self) -> None:
        self._forms = tuple(sorted({form for secret in (*self._secrets, *self._later) for form in forms_of(secret)}))
        self._longest = max(map(len, self._forms), default=0)
        self._heads = frozenset(form[:length] for form in self._forms for length in range(1, HEAD_BYTES + 1))
        self._pattern = _build_pattern(self._forms) if self._forms else None
        self._prepared = True

    def _redact(self, text: bytes, end: int) -> bytes:
        """Return the redacted form of `text[:end]` and hold the rest back. Finds that overlap become one mark."""
        out: list[bytes] = []
        at, covered = 0, self._covered
        for start, stop in self._find_secrets(text, end):
            if start >= covered:
                out += (text[max(at, covered) : start], REDACTION_MARK)
            at, covered = start, max(covered, stop)
        out.append(text[max(at, covered) : end])
        self._held, self._covered = text[end:], max(0, covered - end)
        return b"".join(out)

    def _find_secrets(self, text: bytes, end: int) -> Iterator[tuple[int, int]]:
        at = 0
        while self._pattern and (found := self._pattern.search(text, at)) and found.start() < end:
            yield found.span()
            at = found.start() + 1

    def _undecided_start(self, text: bytes) -> int:
        """Return the first place from which the text, as far as it is known, could be the beginning of a longer form."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[start : start + HEAD_BYTES] not in self._heads:
                continue
            tail = text[start:]
            index = bisect_left(self._forms, tail)
            # The first form that sorts after the tail begins with it, if any does; the tail itself is no open question.
            while index < len(self._forms) and self._forms[index] == tail:
                index += 1
            if index < len(self._forms) and self._forms[index].startswith(tail):
                return start
        return len(text)


def forms_of(secret: str) -> frozenset[bytes]:
    """Return every form in which a secret is looked for; none for one that is too short."""
    raw = secret.encode("utf-8", "surrogateescape")
    if len(raw) < MIN_SECRET_BYTES:
        return frozenset()
    forms = {raw, *_base64_forms(raw), raw.hex().encode(), raw.hex().upper().encode()}
    forms.update(text.encode("utf-8", "surrogateescape") for text in (*_url_forms(raw), *_escaped_forms(secret)))
    for line in secret.splitlines():
        if len(line.strip()) >= MIN_LINE_BYTES:
            forms.add(line.strip().encode("utf-8", "surrogateescape"))
    return frozenset(form for form in forms if len(form) >= MIN_SECRET_BYTES)


def _build_pattern(forms: Iterable[bytes]) -> re.Pattern[bytes]:
    """Return what finds any form: longest first, so that of two that start alike the whole one goes; by first byte, to be quick."""
    rests: dict[bytes, list[bytes]] = {}
    for form in sorted(forms, key=len, reverse=True):
        rests.setdefault(form[:1], []).append(re.escape(form[1:]))
    pattern = re.compile(b"|".join(re.escape(first) + b"(?:" + b"|".join(rest) + b")" for first, rest in rests.items()))
    # re remembers what it compiled; a job's secrets must not outlive the job there.
    re.purge()
    return pattern


def _url_forms(raw: bytes) -> Iterator[str]:
    for text in (quote(raw), quote(raw, safe=""), quote_plus(raw), quote(raw, safe="!*'()~")):
        yield text
        yield _PERCENT.sub(lambda found: found[0].lower(), text)


def _escaped_forms(secret: str) -> Iterator[str]:
    for text in (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        yield text
        yield text.replace("/", "\\/")
    yield repr(secret)[1:-1]
    yield repr(secret.encode("utf-8", "surrogateescape"))[2:-1]
    yield secret.replace("'", "'\\''")
    yield shlex.quote(secret).strip("'")
    # As a line of libpq's password file has it.
    yield secret.replace("\\", "\\\\").replace(":", "\\:")


def _base64_forms(raw: bytes) -> Iterator[bytes]:
    """Yield what all base64 texts that contain the secret have in common, for each of the three places where it can start."""
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + raw)
        # Characters that also hold bits of a neighbour differ from text to text: leave them out.
        first = -(-shift * 8 // 6)
        inner = text[first : (shift + len(raw)) * 8 // 6]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))
