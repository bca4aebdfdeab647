"""Payloads are encrypted with rotating data keys, and what cannot be decrypted is passed on. The Vault here is a stand-in: real ones are elsewhere."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.exceptions import ApplicationError

from justenough.adapters import payload_codec
from justenough.adapters.payload_codec import ENCODING, WRAPPED_KEY_FIELD, EncryptingCodec, data_converter, recode_json
from justenough.adapters.vault import VaultDenied, VaultUnavailable
from justenough.domain.core.errors import InvalidInput
from justenough.domain.core.secret import Secret

CLEAR = Payload(metadata={"encoding": b"json/plain"}, data=b'"pay 4711"')


class KeyBook:
    """Wraps keys by writing them down. `error` is raised instead of an answer."""

    def __init__(self) -> None:
        self.keys: dict[str, Secret] = {}
        self.asked: list[str] = []
        self.errors: list[Exception] = []

    def wrap_data_key(self, key: Secret) -> str:
        self._fail()
        wrapped = f"vault:v1:{base64.b64encode(secrets.token_bytes(60)).decode()}"
        self.keys[wrapped] = key
        return wrapped

    def unwrap_data_key(self, wrapped: str) -> Secret | None:
        self.asked.append(wrapped)
        self._fail()
        return self.keys.get(wrapped)

    def _fail(self) -> None:
        if self.errors:
            raise self.errors.pop()


@pytest.fixture
def book() -> KeyBook:
    return KeyBook()


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The codec's clock, in seconds."""
    now = [1000.0]
    monkeypatch.setattr(payload_codec, "monotonic", lambda: now[0])
    return now


def codec_of(book: KeyBook, installation: str = "dev", *, encrypts: bool = True) -> EncryptingCodec:
    return EncryptingCodec(book, installation=installation, encrypts=encrypts)


@given(st.binary(max_size=2000), st.dictionaries(st.text(min_size=1, max_size=20), st.binary(max_size=50), max_size=3))
def test_a_payload_can_be_decrypted_by_another_process(data: bytes, metadata: dict[str, bytes]) -> None:
    book, payload = KeyBook(), Payload(metadata=metadata, data=data)

    async def run() -> tuple[list[Payload], list[Payload]]:
        encrypted = await codec_of(book).encode([payload, payload])
        return encrypted, await codec_of(book).decode(encrypted)

    encrypted, decrypted = asyncio.run(run())
    assert decrypted == [payload, payload]
    assert encrypted[0].data != encrypted[1].data
    assert encrypted[0].metadata["encoding"] == ENCODING
    assert set(encrypted[0].metadata) == {"encoding", WRAPPED_KEY_FIELD}
    assert len(data) < 8 or data not in encrypted[0].data


async def test_a_key_is_unwrapped_once_per_process(book: KeyBook) -> None:
    writer, reader = codec_of(book), codec_of(book)
    for _ in range(3):
        await reader.decode(await writer.encode([CLEAR]))
        await writer.decode(await writer.encode([CLEAR]))
    assert book.asked == list(book.keys)


async def test_a_payload_that_is_not_encrypted_is_read_as_it_is(book: KeyBook) -> None:
    assert await codec_of(book).decode([CLEAR]) == [CLEAR]
    silent = codec_of(book, encrypts=False)
    await silent.prepare()
    assert await silent.encode([CLEAR]) == [CLEAR]
    assert not book.keys
    assert await silent.decode(await codec_of(book).encode([CLEAR])) == [CLEAR]


async def test_a_payload_that_cannot_be_decrypted_is_passed_on_and_vault_is_asked_once(book: KeyBook) -> None:
    codec = codec_of(book)
    (good,) = await codec.encode([CLEAR])

    def junk(data: bytes = good.data, **metadata: bytes) -> Payload:
        return Payload(metadata={"encoding": ENCODING, **metadata}, data=data)

    real = good.metadata[WRAPPED_KEY_FIELD]
    unknown = f"vault:v1:{base64.b64encode(secrets.token_bytes(60)).decode()}".encode()
    sent = [
        junk(),
        junk(**{WRAPPED_KEY_FIELD: b"vault:v1:short"}),
        junk(**{WRAPPED_KEY_FIELD: b"\xff" * 90}),
        junk(**{WRAPPED_KEY_FIELD: unknown}),
        junk(b"", **{WRAPPED_KEY_FIELD: real}),
        junk(good.data[:-1] + bytes([good.data[-1] ^ 1]), **{WRAPPED_KEY_FIELD: real}),
    ]
    for _ in range(2):
        assert await codec.decode([*sent, good]) == [*sent, CLEAR]
    assert book.asked == [unknown.decode()]


async def test_a_key_that_vault_may_decrypt_again_is_asked_for_again_after_a_while(book: KeyBook, time: list[float]) -> None:
    """`min_decryption_version` was raised by mistake, and lowered again."""
    encrypted, reader = await codec_of(book).encode([CLEAR]), codec_of(book)
    kept, book.keys = book.keys, {}
    assert await reader.decode(encrypted) == encrypted
    book.keys = kept
    time[0] += payload_codec.RECHECK_S
    assert await reader.decode(encrypted) == [CLEAR]
    time[0] += payload_codec.RECHECK_S
    assert await reader.decode(encrypted) == [CLEAR]
    assert len(book.asked) == 2


async def test_another_installation_cannot_decrypt_a_payload(book: KeyBook) -> None:
    encrypted = await codec_of(book, "prod").encode([CLEAR])
    assert await codec_of(book, "dev").decode(encrypted) == encrypted
    assert await codec_of(book, "prod").decode(encrypted) == [CLEAR]


async def test_an_unknown_key_waits_for_a_vault_that_restarts(book: KeyBook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload_codec, "UNWRAP_INTERVAL_S", 0.0)
    encrypted = await codec_of(book).encode([CLEAR])
    book.errors = [VaultUnavailable("restarting")] * 3
    assert await codec_of(book).decode(encrypted) == [CLEAR]
    assert len(book.asked) == 4


async def test_decoding_fails_if_vault_stays_away_or_refuses(book: KeyBook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload_codec, "UNWRAP_PATIENCE_S", -1.0)
    encrypted = await codec_of(book).encode([CLEAR])
    for error in (VaultUnavailable("away"), VaultDenied("no right")):
        book.errors = [error]
        with pytest.raises(type(error)):
            await codec_of(book).decode(encrypted)
    assert await codec_of(book).decode(encrypted) == [CLEAR]


async def test_no_payload_is_written_in_clear_if_vault_wraps_no_key(book: KeyBook) -> None:
    book.errors = [VaultUnavailable("away")]
    codec = codec_of(book)
    with pytest.raises(VaultUnavailable):
        await codec.encode([CLEAR])
    assert (await codec.encode([CLEAR]))[0].metadata["encoding"] == ENCODING


async def test_the_data_key_is_replaced_after_an_hour_and_kept_while_vault_is_away(book: KeyBook, time: list[float]) -> None:
    codec = codec_of(book)

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))

    async def key_used() -> str:
        (encrypted,) = await codec.encode([CLEAR])
        # The only thread is free again when a replacement has ended.
        await asyncio.to_thread(bool)
        return encrypted.metadata[WRAPPED_KEY_FIELD].decode()

    first = await key_used()
    time[0] += payload_codec.ROTATION_S - 1
    assert await key_used() == first
    time[0] += 2
    book.errors = [VaultUnavailable("away")]
    assert await key_used() == first
    assert await key_used() == first
    assert len(book.keys) == 1
    time[0] += payload_codec.RETRY_S + 1
    assert await key_used() == first
    assert await key_used() == list(book.keys)[1]


async def test_failures_are_encrypted_with_their_messages(book: KeyBook) -> None:
    for codec, clear in ((codec_of(book), False), (codec_of(book, encrypts=False), True)):
        converter = data_converter(codec)

        failure = Failure()
        await converter.encode_failure(ApplicationError("the account of ada is locked", {"account": "ada"}), failure)
        assert (b"ada" in failure.SerializeToString()) is clear
        error = await data_converter(codec_of(book)).decode_failure(failure)
        assert isinstance(error, ApplicationError)
        assert (error.message, error.details) == ("the account of ada is locked", ({"account": "ada"},))


async def test_payloads_in_temporals_json_are_recoded_and_any_other_body_is_refused(book: KeyBook) -> None:
    codec = codec_of(book)
    clear = {"payloads": [{"metadata": {"encoding": base64.b64encode(b"json/plain").decode()}, "data": base64.b64encode(b"1").decode()}]}
    encrypted = await recode_json(json.dumps(clear).encode(), codec.encode)
    assert json.loads(encrypted) != clear
    assert json.loads(await recode_json(encrypted.encode(), codec.decode)) == clear
    for body in (b"", b"1", b"{", b'{"payload": []}', b'{"payloads": [1]}', b'{"payloads": [{"data": "A"}]}', b"\xff", b"[" * 200_000):
        with pytest.raises(InvalidInput, match=r"the body: must be payloads in Temporal's JSON: \{"):
            await recode_json(body, codec.decode)


async def test_a_flood_of_unknown_keys_uses_bounded_memory(book: KeyBook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload_codec, "MAX_KNOWN_KEYS", 10)
    codec = codec_of(book)
    (good,) = await codec.encode([CLEAR])
    keys = [f"vault:v1:{base64.b64encode(secrets.token_bytes(60)).decode()}".encode() for _ in range(25)]
    await codec.decode([Payload(metadata={"encoding": ENCODING, WRAPPED_KEY_FIELD: key}) for key in keys])
    assert len(codec._keys._known) <= 10
    assert await codec.decode([good]) == [CLEAR]
