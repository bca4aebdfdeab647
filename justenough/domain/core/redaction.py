"""Removes secrets from a stream of bytes: their exact values and the forms in which programs print them. No I/O.

Known forms: as is; URL-encoded; base64, standard and URL-safe, also inside a longer text; hex; escaped as in JSON, in Python's
repr, in a shell word and in libpq's password file; each long line of a multi-line secret. Secrets shorter than four bytes are
ignored: removing them would leave no log, and hide nothing. Secrets that a job transforms in its own way are not found: redaction
guards against accidents.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

REDACTION_MARK = b"[redacted]"
MIN_SECRET_BYTES = 4
"""Shorter secrets, in bytes, are not redacted."""
HEAD_BYTES = 8
"""Bytes of each form that are compared first, for speed."""
MAX_LEARNT_SECRETS = 100
"""Secrets learnt while the stream runs that it remembers. Older ones have expired by then, or the job requests very many at once."""
MIN_LINE_BYTES = 16
"""A line of a multi-line secret counts as a secret from this many bytes on."""


class Redactor:
    """Redacts one stream. The output does not depend on how the input is cut into chunks.

    `learn` may be called while `feed` runs in another thread; `feed` and `flush` must follow each other.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = tuple(secrets)
        self._learnt: tuple[str, ...] = ()
        self._forms_by_secret: dict[str, frozenset[bytes]] = {}
        """The forms of the secrets that are looked for now."""
        self._forms: tuple[bytes, ...] = ()
        self._longest = 0
        self._heads = frozenset[bytes]()
        self._held = b""
        self._covered = 0
        # The number of bytes at the start of `_held` that belong to a match whose mark is already written.

    def learn(self, secrets: Iterable[str]) -> None:
        """Redact these secrets too, from the next bytes on. Only the newest MAX_LEARNT_SECRETS are remembered. Takes microseconds."""
        self._learnt = (*self._learnt, *secrets)[-MAX_LEARNT_SECRETS:]

    def feed(self, chunk: bytes) -> bytes:
        """Return the redacted bytes that are final. Bytes that may be the start of a secret are held back until more arrive."""
        secrets = dict.fromkeys((*self._secrets, *self._learnt))
        if secrets.keys() != self._forms_by_secret.keys():
            # Only new secrets cost time here: a job can have one learnt with each request that it makes.
            known = self._forms_by_secret
            self._forms_by_secret = {secret: known[secret] if secret in known else forms_of(secret) for secret in secrets}
            self._forms = tuple(sorted(frozenset[bytes]().union(*self._forms_by_secret.values())))
            self._longest = max(map(len, self._forms), default=0)
            self._heads = frozenset(form[:length] for form in self._forms for length in range(1, HEAD_BYTES + 1))
        held = self._held + chunk
        return self._redact(held, self._undecided_start(held))

    def flush(self) -> bytes:
        """Return the bytes that were held back, redacted. Call it when the stream has ended."""
        return self._redact(self._held, len(self._held)) if self._held else b""

    def _redact(self, text: bytes, end: int) -> bytes:
        """Return the redacted form of `text[:end]` and hold the rest back. Overlapping matches become one mark."""
        out: list[bytes] = []
        at, covered = 0, self._covered
        matches: list[tuple[int, int]] = []
        # Form by form, without a regular expression of all: compiling that takes up to a second.
        for form in self._forms:
            start = text.find(form)
            while 0 <= start < end:
                matches.append((start, start + len(form)))
                start = text.find(form, start + 1)
        for start, stop in sorted(matches):
            if start >= covered:
                out += (text[max(at, covered) : start], REDACTION_MARK)
            at, covered = start, max(covered, stop)
        out.append(text[max(at, covered) : end])
        self._held, self._covered = text[end:], max(0, covered - end)
        return b"".join(out)

    def _undecided_start(self, text: bytes) -> int:
        """Return the first position at which the text may begin a form that is not complete yet; the text's length if there is none."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[start : start + HEAD_BYTES] not in self._heads:
                continue
            tail = text[start:]
            # If any form begins with the tail, the first form that sorts after the tail does. A form that equals the tail is complete.
            index = bisect_left(self._forms, tail)
            while index < len(self._forms) and self._forms[index] == tail:
                index += 1
            if index < len(self._forms) and self._forms[index].startswith(tail):
                return start
        return len(text)


def forms_of(secret: str) -> frozenset[bytes]:
    """Return every form of a secret that is redacted; none for a secret that is too short."""
    raw = secret.encode("utf-8", "surrogateescape")
    if len(raw) < MIN_SECRET_BYTES:
        return frozenset()
    urls = [quote(raw), quote(raw, safe=""), quote_plus(raw), quote(raw, safe="!*'()~")]
    escaped = [json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]]
    texts = (
        *urls,
        *(re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), url) for url in urls),
        *escaped,
        *(text.replace("/", "\\/") for text in escaped),
        repr(secret)[1:-1],
        repr(raw)[2:-1],
        secret.replace("'", "'\\''"),
        shlex.quote(secret).strip("'"),
        # The form in a line of libpq's password file.
        secret.replace("\\", "\\\\").replace(":", "\\:"),
        *(line.strip() for line in secret.splitlines() if len(line.strip()) >= MIN_LINE_BYTES),
    )
    forms = {raw, *_base64_forms(raw), raw.hex().encode(), raw.hex().upper().encode()}
    forms.update(text.encode("utf-8", "surrogateescape") for text in texts)
    return frozenset(form for form in forms if len(form) >= MIN_SECRET_BYTES)


def _base64_forms(raw: bytes) -> Iterator[bytes]:
    """Yield, for each of the three possible alignments, the characters that every base64 text with the secret at this alignment contains."""
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + raw)
        # Leave out characters that also encode bits of neighbouring bytes: they differ from text to text.
        inner = text[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))
