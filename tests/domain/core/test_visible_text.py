"""How untrusted text is shown: ordinary words of any language as they are, and everything that hides or deceives as an escape."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.core.visible_text import MAX_MARKS, escape, visible_text

HOSTILE = (
    "aаcеmο-_.@ \u3164\xa0\u3000\u202f1«:!金カⅡⅿ\u0301\u0323\u0338\u094d\u200d\u200cकबमи\\xun0\n\u1100\u1161\u11a8\u09c7\u09be\ufe0f❤ဝ𝐚"
)
TEXTS = st.text(alphabet=HOSTILE, max_size=12) | st.text(max_size=60)
ORDINARY = [
    "Refund ticket 4711, as agreed.",
    "Zahlung für Müller: 12 €, straße, naïve façade",
    "Remboursement\xa0: 1\u202f000\xa0€ «\xa0urgent\xa0»",
    "Hoàn tiền cho khách hàng Nguyễn",
    unicodedata.normalize("NFD", "Hoàn tiền cho khách hàng Nguyễn"),
    "Ẹ̀kọ́ fún ọmọ",
    "返金　対応（チケット４７１１）をSQLで確認する。フェーズⅡ",
    "ﾊﾝｶｸ ｶﾅ ２回",
    "환불 요청 Ⅱ단계, API키",
    unicodedata.normalize("NFD", "환불 요청"),
    "退款請求 4711",
    "ज़िंदगी लड़कियाँ अंग्रेज़ी गर्\u200dयो, SQLमें",
    "বাংলা தமிழ் నమస్తే ಕನ್ನಡ മലയാളം ගුවන් ශ්\u200dරී ලංකා",
    "ระบบAPIใหม่ ที่ น้ำ ผู้ หนึ่ง ไฟล์",
    "لا أريد: العَرَبِيَّةُ والAPI ٤٧١١",
    "می\u200cخواهم پول را برگردانم",
    "שָׁלוֹם לְכֻלָּם, הAPI",
    "လျှို့ဝှက် ချွေ့",
    "ខ្ញុំ ស្ត្រី កម្ពុជា",
    "བསྒྲུབས་ རྒྱུ",
    "አማርኛ ქართული Հայերեն",
    "Возврат по IT-отделу, USB-кабель, Подъём",
    "Επιστροφή χρημάτων, Ῥόδος",
    "5 μs, 5 µs, 3 kΩ, Δt, x² ½ H₂O",
    "❤️ ⚠️ 👍🏽 🇩🇪 done",
    'C:\\новый, {"amount": 12}',
]
HIDDEN = [
    ("a\u3164b", r"a\u3164b"),
    ("a\u2800b", r"a\u2800b"),
    ("a\u17b4b", r"a\u17b4b"),
    ("a\u1680b", r"a\u1680b"),
    ("acme\xa0corp", r"acme\xa0corp"),
    ("acme\u3000", r"acme\u3000"),
    ("\u115f\u1160\uffa0\u034f", r"\u115f\u1160\uffa0\u034f"),
    ("acme\ufe0f\ufe01\U000e0100", r"acme\ufe0f\ufe01\U000e0100"),
    ("1\ufe0f\u20e3", r"1\ufe0f\u20e3"),
    ("👩\u200d💻", r"👩\u200d💻"),
    ("ab\u200dc \u200c", r"ab\u200dc \u200c"),
    ("a\nb\tc\x1b]0;t\x07", r"a\nb\tc\x1b]0;t\x07"),
    ("abc\u202edcba\ud800\ue000", r"abc\u202edcba\ud800\ue000"),
]
MARKS = [
    ("g" + "\u0301" * 60, "ǵ" + r"\u0301" * 59),
    ("ẹ\u0301\u0300", "ẹ\u0301" + r"\u0300"),
    ("a\u0336p\u0336", r"a\u0336p\u0336"),
    (" \u0301", r" \u0301"),
    ("a\u0e47", r"a\u0e47"),
    ("ก\u0e47\u0e47", r"ก็\u0e47"),
    ("\u3164\u0301", r"\u3164\u0301"),
]
MIXED = [
    ("аcme", r"\u0430cme"),
    ("tenant=аcme", r"tenant=\u0430cme"),
    ("асme1", r"\u0430\u0441me1"),
    ("Mосква", r"\x4dосква"),
    ("οrders-db", r"\u03bfrders-db"),
    ("асе-team", r"\u0430\u0441\u0435-team"),
    ("ops.асе@example.com", r"ops.\u0430\u0441\u0435@example.com"),
    ("acⅿe", r"ac\u217fe"),
    ("𝐚cme", r"\U0001d41acme"),
    ("g၀၀gle", r"g\u1040\u1040gle"),
    ("金ж", r"金\u0436"),
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_texts_of_many_languages_stay_as_they_are(text: str) -> None:
    assert visible_text(text) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("text, shown", [*HIDDEN, *MARKS, *MIXED])
def test_what_hides_or_deceives_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert visible_text(text) == shown


@pytest.mark.parametrize("text", ["раура1", "асе", "ɑcme"])
def test_words_of_one_script_that_look_like_others_are_not_recognised(text: str) -> None:
    assert visible_text(text) == text


@given(TEXTS)
def test_only_visible_characters_are_shown_whatever_the_text(text: str) -> None:
    shown = visible_text(text)
    for position, char in enumerate(shown):
        category = unicodedata.category(char)
        # The joiners and the emoji presentation follow what they belong to.
        assert category[0] in "LNPS" or category in {"Mn", "Mc"} or char == " " or char in "\xa0\u202f\u3000\u200c\u200d", ascii(shown)
        if category in {"Mn", "Mc", "Cf"}:
            assert position, ascii(shown)
            assert unicodedata.category(shown[position - 1])[0] in "LMS" or shown[position - 1] in "\u200c\u200d", ascii(shown)


@given(TEXTS)
def test_a_letter_has_few_marks(text: str) -> None:
    run = 0
    for char in visible_text(text):
        run = run + 1 if unicodedata.category(char)[0] == "M" else 0
        assert run <= max(MAX_MARKS.values())


@given(TEXTS)
def test_a_shown_text_is_shown_unchanged_and_normalised(text: str) -> None:
    shown = visible_text(text)
    assert visible_text(shown) == shown
    assert unicodedata.is_normalized("NFC", shown)


@given(TEXTS)
def test_the_length_is_bounded(text: str) -> None:
    assert len(visible_text(text)) <= 10 * len(unicodedata.normalize("NFC", text))


@given(st.text(alphabet=st.characters(max_codepoint=0x7E, min_codepoint=0x20)))
def test_printable_ascii_stays_as_it_is(text: str) -> None:
    assert visible_text(text) == text


@given(st.characters())
def test_an_escape_is_read_back_as_its_character(char: str) -> None:
    assert escape(char).encode("ascii").decode("unicode_escape") == char


@pytest.mark.parametrize("part", ["a\u0301\u0323", "\u0315\u0300\u0323\u0334", "аcmе", "a\u3164", "金　", "и-a"])
def test_the_time_grows_with_the_length_only(part: str) -> None:
    began = time.process_time()
    visible_text(part * 30_000)
    assert time.process_time() - began < 30
