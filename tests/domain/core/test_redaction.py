"""No secret passes a redactor, wherever the stream is split, in any of the forms in which programs print secrets."""

import base64
import itertools
import json
import re
import shlex
import time
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.core import redaction
from justenough.domain.core.redaction import MAX_LEARNT_SECRETS, REDACTION_MARK, Redactor, forms_of

SECRET = "p/ä\"+s w\\%d'-9_~é"
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
secrets = st.text(st.characters(exclude_categories=["Cs"]), min_size=4, max_size=24)
few_letters = st.text("ab=", max_size=30)


def redact(secret_values: list[str], *chunks: bytes) -> bytes:
    redactor = Redactor(secret_values)
    return b"".join(map(redactor.feed, chunks)) + redactor.flush()


def cut(text: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[start:stop] for start, stop in itertools.pairwise(edges)]


def encodings(secret: str) -> list[bytes]:
    raw = secret.encode()
    return [
        raw,
        quote(secret).encode(),
        quote(secret, safe="").encode(),
        quote_plus(secret).encode(),
        base64.b64encode(raw),
        base64.urlsafe_b64encode(raw).rstrip(b"="),
        raw.hex().encode(),
        json.dumps(secret)[1:-1].encode(),
        json.dumps(secret, ensure_ascii=False)[1:-1].encode(),
        repr(secret)[1:-1].encode(),
        secret.replace("\\", "\\\\").replace(":", "\\:").encode(),
    ]


@given(before=texts, secret=secrets, after=texts, form=st.integers(0, 10), places=st.lists(st.integers(0, 500), max_size=12))
def test_no_form_of_a_secret_comes_out_however_the_stream_is_cut(
    before: str, secret: str, after: str, form: int, places: list[int]
) -> None:
    text = before.encode() + encodings(secret)[form] + after.encode()
    # The mark itself may contain a secret's text; the text around it must not.
    parts = redact([secret], *cut(text, places)).split(REDACTION_MARK)
    assert all(known not in part for part in parts for known in encodings(secret) if len(known) >= 4)
    assert len(parts) > 1


@given(values=st.lists(few_letters, min_size=1, max_size=4), text=few_letters, places=st.lists(st.integers(0, 500), max_size=12))
def test_the_cuts_of_a_stream_do_not_change_the_result_even_if_secrets_overlap(values: list[str], text: str, places: list[int]) -> None:
    assert redact(values, *cut(text.encode(), places)) == redact(values, text.encode())


@given(text=st.binary(max_size=200), places=st.lists(st.integers(0, 200), max_size=8))
def test_a_text_without_secrets_is_passed_on_unchanged(text: bytes, places: list[int]) -> None:
    assert redact(["a secret that is nowhere in it"], *cut(text, places)) == text


@given(before=st.binary(max_size=9), after=st.binary(max_size=9))
def test_a_secret_inside_a_longer_base64_text_is_found_at_each_of_its_three_places(before: bytes, after: bytes) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        assert REDACTION_MARK in redact([SECRET], encode(before + SECRET.encode() + after))


@pytest.mark.parametrize(
    "printed",
    [
        SECRET,
        f"postgresql://u:{quote(SECRET, safe='')}@h/db",
        f"?p={quote_plus(SECRET)}&x=1",
        "?p=p%2f%c3%a4%22%2bs%20w%5c%25d%27-9_~%c3%a9",
        json.dumps({"password": SECRET}),
        json.dumps({"password": SECRET}).replace("/", "\\/"),
        str({"password": SECRET}),
        str(SECRET.encode()),
        SECRET.encode().hex().upper(),
        json.dumps(json.dumps({"password": SECRET})),
        re.sub(r"\\u[0-9a-f]{4}", lambda code: f"\\u{code[0][2:].upper()}", json.dumps(SECRET)),
        shlex.quote(SECRET),
        # As bash prints it after `set -x`.
        "'{}'".format(SECRET.replace("'", "'\\''")),
        SECRET.encode("utf-16-le").decode("latin-1"),
        SECRET.encode("utf-16-be").decode("latin-1"),
    ],
)
def test_a_secret_is_found_in_every_form_in_which_programs_print_it(printed: str) -> None:
    as_bytes = printed.encode("latin-1") if "\0" in printed else printed.encode()
    assert REDACTION_MARK in redact([SECRET], as_bytes)


WRAPPED: dict[str, Callable[[bytes], bytes]] = {
    "base64": base64.encodebytes,
    "openssl": lambda text: wrapped(text, 64, b"\n"),
    "with carriage returns": lambda text: wrapped(text, 76, b"\r\n"),
    "in YAML": lambda text: b"data:\n  key: |\n    " + wrapped(text, 76, b"\n    "),
    "in JSON": lambda text: json.dumps({"content": wrapped(text, 60, b"\n").decode()}).encode(),
    "in JSON with carriage returns": lambda text: json.dumps({"content": wrapped(text, 60, b"\r\n").decode()}).encode(),
}


def wrapped(text: bytes, width: int, line_break: bytes) -> bytes:
    encoded = base64.b64encode(text)
    return line_break.join(encoded[start : start + width] for start in range(0, len(encoded), width))


@given(
    before=st.integers(0, 160),
    secret=st.text(st.characters(codec="ascii"), min_size=12, max_size=300),
    how=st.sampled_from(sorted(WRAPPED)),
    places=st.lists(st.integers(0, 900), max_size=12),
)
def test_a_secret_in_base64_of_several_lines_is_found_at_each_place(before: int, secret: str, how: str, places: list[int]) -> None:
    text = WRAPPED[how](b"." * before + secret.encode() + b"." * 100)
    seen = redact([secret], *cut(text, places))
    assert seen == redact([secret], text)
    alone = {line for form in redaction.forms_of(secret).base64 for line in (form[:6], form[-6:]) if len(form) >= 16}
    assert REDACTION_MARK in seen
    assert not any(part in seen for part in alone), "nothing of it is left on the first or the last of its lines"


def test_a_line_that_is_not_base64_is_not_held_back_though_its_end_may_begin_a_secret() -> None:
    redactor = Redactor(["hunter22"])
    begins = min(redaction.forms_of("hunter22").base64, key=len)[:3]
    for line_break in (b"\n", b"\\n", b"\r\n"):
        assert redactor.feed(b"step " + begins + line_break) == b"step " + begins + line_break


def test_endless_line_breaks_are_not_held_back() -> None:
    redactor = Redactor(["hunter22-" * 20])
    text = base64.b64encode(b"hunter22-" * 10)
    redactor.feed(text)
    for _ in range(3):
        redactor.feed(b"\n" * 100_000)
    assert len(redactor._held) < 100


def test_overlapping_secrets_become_one_mark_and_leave_no_remainder() -> None:
    assert redact(["abcdef", "defghi"], b"x abcdefghi y") == b"x [redacted] y"


def test_the_longer_of_two_secrets_with_the_same_start_is_redacted_whole() -> None:
    assert redact(["hunter", "hunter22!"], b"hunt", b"er22", b"!") == REDACTION_MARK


def test_a_complete_line_is_not_held_back() -> None:
    assert Redactor(["hunter22"]).feed(b"step one done\n") == b"step one done\n"


def test_a_secret_learnt_during_a_stream_is_redacted_in_all_later_output() -> None:
    redactor = Redactor(["hunter22"])
    assert redactor.feed(b"not yet: swordfish\n") == b"not yet: swordfish\n"
    redactor.learn(["swordfish"])
    assert redactor.feed(b"swordfish, hunter22\n") + redactor.flush() == REDACTION_MARK + b", " + REDACTION_MARK + b"\n"


def test_the_newest_learnt_secrets_are_remembered_and_the_initial_ones_always() -> None:
    redactor, learnt = Redactor(["hunter22"]), [f"swordfish-{number:06}" for number in range(MAX_LEARNT_SECRETS + 1)]
    redactor.learn(learnt, about="identity")
    seen = redactor.feed(" ".join(["hunter22", learnt[0], learnt[1], learnt[-1]]).encode()) + redactor.flush()
    assert seen == b" ".join([REDACTION_MARK, learnt[0].encode(), REDACTION_MARK, REDACTION_MARK])


def test_a_kept_secret_is_redacted_however_many_are_learnt_after_it_and_forgotten_when_it_is_not_kept_any_more() -> None:
    redactor, learnt = Redactor([]), [f"swordfish-{number:06}" for number in range(MAX_LEARNT_SECRETS)]
    redactor.learn(["the-brokers-token"])
    redactor.learn(["the-live-password"], about="c-1", kept={"c-1"})
    redactor.learn(learnt, about="identity", kept={"c-1"})
    text = b"the-brokers-token the-live-password swordfish-000000"
    assert redactor.feed(text) + redactor.flush() == b" ".join([REDACTION_MARK] * 3)
    redactor.learn(["one-more"], about="identity", kept=())
    assert redactor.feed(text) + redactor.flush() == b" ".join([REDACTION_MARK, b"the-live-password", b"swordfish-000000"])


@pytest.mark.parametrize("alive", ["c-1", "c-2"])
def test_a_secret_of_two_credentials_is_redacted_as_long_as_either_is_kept(alive: str) -> None:
    redactor, learnt = Redactor([]), [f"swordfish-{number:06}" for number in range(MAX_LEARNT_SECRETS)]
    redactor.learn(["hunter22"], about="c-1", kept={"c-1"})
    redactor.learn(["hunter22"], about="c-2", kept={"c-1", "c-2"})
    redactor.learn(learnt, about="identity", kept={alive})
    assert redactor.feed(b"hunter22") + redactor.flush() == REDACTION_MARK


def test_a_secret_that_is_learnt_again_and_again_makes_the_redactor_forget_no_other() -> None:
    redactor = Redactor([])
    redactor.learn(["hunter22"], about="c-1")
    for _ in range(MAX_LEARNT_SECRETS):
        redactor.learn(["swordfish"], about="identity")
    assert redactor.feed(b"hunter22 swordfish") + redactor.flush() == REDACTION_MARK + b" " + REDACTION_MARK


def test_only_text_that_may_be_the_start_of_a_secret_is_held_back() -> None:
    redactor = Redactor(["hunter22"])
    assert redactor.feed(b"user: hunter") == b"user: "
    assert redactor.feed(b"'s lodge") == b"hunter's lodge"


def test_very_short_values_are_not_treated_as_secrets() -> None:
    assert redact(["abc", ""], b"abc abc") == b"abc abc"
    assert not any(forms_of("abc"))


def test_each_long_line_of_a_private_key_is_a_secret_of_its_own() -> None:
    key = "-----BEGIN KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ\n-----END KEY-----\n"
    assert b"MC4CAQAwBQYDK2VwBCIEIJ" not in redact([key], b"    MC4CAQAwBQYDK2VwBCIEIJ  # indented")


def best_of_three(seconds: Callable[[int], float], size: int) -> float:
    """Return the shortest time: other processes' use of the caches makes single times longer."""
    return min(seconds(size) for _ in range(3))


def test_a_flood_costs_time_in_proportion_to_its_size() -> None:
    values = [f"{number}-Aa1!{'x' * 20}-{number}" for number in range(8)]

    def seconds(size: int) -> float:
        redactor, chunk = Redactor(values), b"all is well, nothing here looks like one of them\n" * 1000
        started = time.process_time()
        for _ in range(size):
            redactor.feed(chunk)
        return time.process_time() - started

    seconds(1)
    assert best_of_three(seconds, 40) < 20 * max(best_of_three(seconds, 10), 0.005)


def test_a_chunk_full_of_secrets_in_short_lines_of_base64_costs_time_in_proportion_to_its_size() -> None:
    def seconds(size: int) -> float:
        redactor, lines = Redactor(["abcd"]), base64.b64encode(b"abcd" * size)
        chunk = b"\n".join(lines[start : start + 16] for start in range(0, len(lines), 16))
        started = time.process_time()
        redactor.feed(chunk)
        return time.process_time() - started

    seconds(1_000)
    assert best_of_three(seconds, 16_000) < 20 * max(best_of_three(seconds, 2_000), 0.002)


def test_the_secrets_of_a_redactor_do_not_stay_in_the_cache_of_re() -> None:
    redactor = Redactor(["canary-of-the-cache"])
    assert redactor.feed(b"a canary-of-the-cache.") == b"a [redacted]."
    assert "anary" in repr(vars(redactor)), "it is found where it is"
    assert "anary" not in repr(vars(re))


def test_learning_one_more_secret_only_adds_its_own_forms_and_compiles_no_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    redactor, counted, compiled = Redactor(f"secret-{number:06}" for number in range(100)), list[str](), list[str | bytes]()
    redactor.feed(b"begun\n")
    compile_pattern = re.compile

    def count_pattern(pattern: bytes) -> re.Pattern[bytes]:
        compiled.append(pattern)
        return compile_pattern(pattern)

    def count_forms(secret: str) -> redaction.SecretForms:
        counted.append(secret)
        return forms_of(secret)

    monkeypatch.setattr(redaction, "forms_of", count_forms)
    monkeypatch.setattr(re, "compile", count_pattern)
    for number in range(3):
        redactor.learn([f"swordfish-{number}"])
        assert redactor.redact(f"swordfish-{number}") == REDACTION_MARK.decode()
        assert redactor.feed(f"swordfish-{number}, secret-000007\n".encode()) == REDACTION_MARK + b", " + REDACTION_MARK + b"\n"
    assert counted == ["swordfish-0", "swordfish-1", "swordfish-2"]
    assert compiled == []
