r"""How text that others wrote is shown to a person, in the command line, on pages and in notifications. No I/O.

A reader sees what the text contains: it is normalised (NFC), and what cannot be seen, or looks like something else, is written as an escape.
The escapes are Python's: `\u3164`. A text that already contains one, such as `\n`, is shown unchanged.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Me", "Zl", "Zp"})
"""Controls, surrogates, invisible and direction-changing characters, marks that enclose or strike out what stands before them."""
BLANKS = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\ufffc\uffa0\U00016fe4\U0001d159"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)
"""Letters, marks and symbols without a visible form: fillers, variation selectors, the empty Braille pattern."""

PLACEABLE = "\xa0\u202f"
# Blanks where typography puts them: French punctuation, grouped digits.
PLACED_BLANK = re.compile("[\xa0\u202f](?=[:;!?»%€])|(?<=[0-9«])[\xa0\u202f](?=[0-9])|(?<=«)[\xa0\u202f]")
IDEOGRAPHIC_SPACE = "\u3000"
EMOJI_PRESENTATION = "\ufe0f"

# The zero-width joiners are letters' business in these places only (RFC 5892, appendix A).
NON_JOINER, JOINER = "\u200c", "\u200d"
VIRAMAS = frozenset("\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca")
DUAL_JOINING = frozenset("بتثجحخسشصضطظعغفقكلمنهيئپچکگیھٹہ")

MAX_MARKS = {"MYANMAR": 5, "TIBETAN": 5}
"""Marks of its own script that a letter can have in ordinary words; DEFAULT_MAX_MARKS in other scripts. Of general accents it has one."""
DEFAULT_MAX_MARKS = 3
MAX_MARK_RUN = 30
"""Longest run of marks that is normalised: Unicode's Stream-Safe Text Format (UAX 15). It bounds the time."""
OVERLAY_CLASS = 1
"""The combining class of the marks that strike a letter out."""

EAST_ASIAN = frozenset(
    {"CJK", "IDEOGRAPHIC", "VERTICAL", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HALFWIDTH", "FULLWIDTH", "BOPOMOFO", "HANGUL", "ROMAN"}
)
"""Scripts that one word may mix. ROMAN: the numerals that look like Latin letters."""
BESIDE_LATIN = frozenset(
    {"ARABIC", "BENGALI", "DEVANAGARI", "ETHIOPIC", "GEORGIAN", "GUJARATI", "GURMUKHI", "HEBREW", "KANNADA", "KHMER", "LAO", "MALAYALAM"}
    | {"MYANMAR", "ORIYA", "SINHALA", "TAMIL", "TELUGU", "THAANA", "THAI", "TIBETAN"}
)
"""Scripts that one word may mix with Latin: UTS 39's level "moderately restrictive". Not Cyrillic, Greek, Armenian: many letters look alike."""
SCRIPT_OF_NAME = {"ARABIC-INDIC": "ARABIC", "EXTENDED": "ARABIC", "SMALL": "ROMAN"}
"""The scripts of numerals whose names begin with another word."""
DIGITS = " digits"
"""The end of the name of a script's digits, which go with its letters and not with Latin ones: some look like o."""
# Letters of no script, and Greek letters that are symbols in texts of all scripts (5 μs, Δt, 3 kΩ) and look like no Latin letter.
NO_SCRIPT = frozenset({"CARON", "FEMININE", "MASCULINE", "MICRO", "MODIFIER", "SUPERSCRIPT", "TURNED"})
SYMBOLS = frozenset("ΔΣΩμπ")
LATIN_LOOKALIKES = frozenset("аеорсухіјѕһԁԛԝүАВЕКМНОРСТУХІЈЅԌԚԜҮӀӏ" + "ανικορυχΑΒΕΖΗΙΚΜΝΟΡΤΥΧ" + "օոսցհզ")
"""Cyrillic, Greek and Armenian letters that look like Latin ones."""

ESCAPE = re.compile(r"([\\⧵](?:[nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}))")
"""One escape. ⧵ stands for the backslash in notifications."""
ASCII_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# In the roles of a text's characters: w for a letter or digit, j for what joins words to a name.
COMPOUND, WORD = re.compile("w+(?:jw+)*"), re.compile("w+")
JOINERS = frozenset("-.@")


@dataclass(frozen=True, slots=True)
class _Cluster:
    """A character with its marks. `script`: empty for a character of no script."""

    text: str
    script: str = ""
    role: str = " "

    @property
    def is_letter(self) -> bool:
        return bool(self.script) and not self.text[0].isdecimal()

    def to_escape(self) -> _Cluster:
        return _Cluster("".join(map(escape, self.text)))


def visible_text(text: str) -> str:
    r"""Return an untrusted text on one line as a person can safely read it.

    Printable characters stay, a letter with at most the marks that are ordinary in its script. Everything else is escaped: controls, blanks
    other than the space, further marks, and in a word that mixes scripts that look alike the letters of the rarer one: `\u0430cme`.
    Words of one script that look like a word of another are not recognised, except as part of a name: `асе-team`.

    The result is at most ten times as long as the normalised text, and showing it again changes nothing.
    """
    if text.isascii():
        return ASCII_CONTROL.sub(lambda found: escape(found[0]), text)
    # Odd parts are escapes.
    return "".join(part if number % 2 else _visible_part(part) for number, part in enumerate(ESCAPE.split(text)))


def is_hidden(char: str) -> bool:
    """Whether a character is a control character, or a blank other than the space."""
    category = unicodedata.category(char)
    return category in HIDDEN_CATEGORIES or char in BLANKS or (category == "Zs" and char != " ")


def escape(char: str) -> str:
    """Return one character as an escape, even if it is printable."""
    code = ord(char)
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char)
    return named or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def _visible_part(text: str) -> str:
    run, bounded = 0, list[str]()
    for char in text:
        run = run + 1 if unicodedata.combining(char) else 0
        bounded.append(char if run <= MAX_MARK_RUN else escape(char))
    clusters = list(_clusters(unicodedata.normalize("NFC", "".join(bounded))))
    _escape_mixed_scripts(clusters)
    _escape_lookalike_parts(clusters)
    shown: list[str] = []
    for cluster in clusters:
        # The ideographic space is ordinary after characters as wide as itself.
        is_misplaced = cluster.text == IDEOGRAPHIC_SPACE and not (shown and unicodedata.east_asian_width(shown[-1][-1]) in "WF")
        shown.append((cluster.to_escape() if is_misplaced else cluster).text)
    return "".join(shown)


def _clusters(text: str) -> Iterator[_Cluster]:
    """Yield the characters of a text, each with the marks that it may have, or as an escape."""
    index = 0
    while index < len(text):
        char, start = text[index], index
        index += 1
        if not _stands_alone(char) and char != IDEOGRAPHIC_SPACE and not (char in PLACEABLE and PLACED_BLANK.match(text, start)):
            yield _Cluster(escape(char))
            continue
        script = _script(char)
        while index < len(text) and _may_follow(text[start:index], script, text[index : index + 2]):
            index += 1
        role = "w" if script or char in "_0123456789" else "j" if char in JOINERS else " "
        yield _Cluster(text[start:index], script, role)


def _may_follow(cluster: str, script: str, following: str) -> bool:
    """Whether the next character belongs to a cluster. `following`: that character and the one after it."""
    char = following[0]
    if char.isascii():
        return False
    if char == EMOJI_PRESENTATION:
        return unicodedata.category(cluster) in {"So", "Sm"} if len(cluster) == 1 else False
    if char in {NON_JOINER, JOINER}:
        is_joined = cluster[-1] in VIRAMAS or (char == NON_JOINER and cluster in DUAL_JOINING)
        return is_joined and len(following) > 1 and _stands_alone(following[1]) and _script(following[1]) == script
    if unicodedata.category(char) not in {"Mn", "Mc"} or is_hidden(char) or unicodedata.combining(char) == OVERLAY_CLASS:
        return False
    # No word has a mark twice on one letter. Composed letters have theirs, too.
    if char in unicodedata.normalize("NFD", cluster):
        return False
    own = _name_start(char)
    limit = 1 if own == "COMBINING" else MAX_MARKS.get(own, DEFAULT_MAX_MARKS) if own == script else 0
    return cluster[0].isalpha() and len(cluster) <= limit


@lru_cache(maxsize=4096)
def _stands_alone(char: str) -> bool:
    """Whether a character is visible without another before it. Styled letters, which pass for plain ones, count as hidden."""
    return not (is_hidden(char) or unicodedata.category(char)[0] == "M" or unicodedata.decomposition(char).startswith("<font>"))


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    """Return the script of a letter or a number by the first word of its name; empty for other characters and for those of no script."""
    if not char.isalnum() or (char.isascii() and char.isdecimal()) or char in SYMBOLS:
        return ""
    start = _name_start(char)
    script = SCRIPT_OF_NAME.get(start, start)
    if char.isdecimal() and script not in EAST_ASIAN:
        return f"{script}{DIGITS}"
    # Other numbers than digits and the Roman ones, such as ² and ½, are symbols.
    is_symbol = start in NO_SCRIPT or not (char.isalpha() or char.isdecimal() or script == "ROMAN")
    return "" if is_symbol else script


def _name_start(char: str) -> str:
    return unicodedata.name(char, "UNNAMED").split()[0]


def _escape_mixed_scripts(clusters: list[_Cluster]) -> None:
    """Escape the letters and digits of each word that its other letters do not go with."""
    for word in WORD.finditer(_roles(clusters)):
        kept = _kept_scripts(cluster.script for cluster in clusters[slice(*word.span())] if cluster.script)
        for number in range(*word.span()):
            if clusters[number].script and clusters[number].script not in kept:
                clusters[number] = clusters[number].to_escape()


def _escape_lookalike_parts(clusters: list[_Cluster]) -> None:
    """Escape each word that could be Latin but is not, in a name with Latin letters."""
    roles = _roles(clusters)
    for compound in COMPOUND.finditer(roles):
        if not any(cluster.script == "LATIN" for cluster in clusters[slice(*compound.span())]):
            continue
        for word in WORD.finditer(roles, *compound.span()):
            letters = [number for number in range(*word.span()) if clusters[number].is_letter]
            if all(clusters[number].text[0] in LATIN_LOOKALIKES for number in letters):
                for number in letters:
                    clusters[number] = clusters[number].to_escape()


def _roles(clusters: Iterable[_Cluster]) -> str:
    return "".join(cluster.role for cluster in clusters)


def _kept_scripts(scripts: Iterable[str]) -> frozenset[str]:
    """Return the scripts of a word that are shown: the most frequent one (if in doubt Latin) and those that go with it."""
    counts = Counter(scripts)
    kept: frozenset[str] = frozenset()
    for script in sorted(counts, key=lambda script: (-counts[script], script != "LATIN", script)):
        if _go_together(kept | {script}):
            kept |= {script}
    return kept


def _go_together(scripts: frozenset[str]) -> bool:
    """Whether an ordinary word can contain letters and digits of all these scripts. If so, it can of some of them."""
    others = frozenset(script.removesuffix(DIGITS) for script in scripts) - {"LATIN"}
    if "LATIN" not in scripts:
        return len(others) == 1 or others <= EAST_ASIAN
    if "ROMAN" in scripts or any(script.endswith(DIGITS) for script in scripts):
        return len(scripts) == 1
    return others <= EAST_ASIAN or (len(others) == 1 and others <= BESIDE_LATIN)
