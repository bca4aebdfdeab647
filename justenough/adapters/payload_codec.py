"""Encrypts what we write into Temporal: arguments, results, signals, failures. Temporal's servers and its backups see ciphertext.

AES-256-GCM with data keys of this process, which Vault wraps (transit key `je-payloads`). Each payload carries the wrapped key that decrypts it.
Ids of workflows, their types and their search attributes are not payloads: Temporal stores them as they are.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Protocol

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes, PayloadCodec

from justenough.domain.core.errors import InvalidInput, JustEnoughError, Problem, RetryLater
from justenough.domain.core.secret import Secret

ENCODING = b"binary/encrypted"
"""The encoding that Temporal's own examples use for encrypted payloads."""
WRAPPED_KEY_FIELD = "encryption-key"
"""The metadata field with the wrapped data key."""
WRAPPED_KEY = re.compile(rb"vault:v[1-9][0-9]{0,8}:[A-Za-z0-9+/]{80}")
"""Matches 32 bytes encrypted by Vault, with a nonce and a tag. Anything else is not sent to Vault."""
KEY_BITS = 256
NONCE_BYTES = 12
ROTATION_S = 3600.0
"""Age at which a data key is replaced. Within an hour no process comes near the 2^32 payloads that are safe with random nonces."""
RETRY_S = 60.0
"""Seconds until a failed rotation is tried again. Until then the old key encrypts."""
RECHECK_S = 600.0
"""Seconds until Vault is asked again about a key that it could not decrypt: somebody may have allowed the key's version again."""
MAX_KNOWN_KEYS = 10_000
UNWRAP_PATIENCE_S, UNWRAP_INTERVAL_S = 10.0, 0.5
"""How many seconds decoding waits for a Vault that restarts, and seconds between two tries.

It waits because some activities are tried only once.
"""

Recoding = Callable[[Sequence[Payload]], Awaitable[list[Payload]]]
"""A codec's `encode` or `decode`."""

log = structlog.get_logger()


class KeyWrapper(Protocol):
    """Wraps and unwraps data keys with Vault. Blocking."""

    def wrap_data_key(self, key: Secret) -> str:
        """Return a data key (base64) as ciphertext."""

    def unwrap_data_key(self, wrapped: str) -> Secret | None:
        """Return the data key (base64) of a ciphertext; None if Vault cannot decrypt it, however often it is asked."""


@dataclass(frozen=True, slots=True)
class DataKey:
    """A data key that encrypts."""

    wrapped: bytes
    cipher: AESGCM = field(repr=False)


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A data key that decrypts, and when Vault was asked about it."""

    cipher: AESGCM | None = field(repr=False)
    """None if Vault cannot decrypt the key."""
    asked_at: float


class DataKeys:
    """The data keys of one process: the one that encrypts now, and those that it has unwrapped. Thread-safe."""

    def __init__(self, vault: KeyWrapper) -> None:
        self._vault = vault
        self.newest: DataKey | None = None
        """The key that encrypts; None if there is none yet."""
        self._known: dict[bytes, KnownKey] = {}
        """Data keys by their wrapped form."""
        self._next_rotation = 0.0
        self._lock = threading.Lock()

    @property
    def rotation_is_due(self) -> bool:
        """Whether the key that encrypts should be replaced."""
        return monotonic() >= self._next_rotation

    def make(self) -> DataKey:
        """Return the key that encrypts; create it if there is none. Blocking. Raises RetryLater and GiveUp, as Vault does."""
        with self._lock:
            return self.newest or self._replace()

    def rotate(self) -> None:
        """Replace the key that encrypts, unless another thread does; keep it if Vault wraps no new one. Blocking."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self.rotation_is_due:
                self._replace()
        except JustEnoughError as error:
            self._next_rotation = monotonic() + RETRY_S
            log.warning("the key that encrypts Temporal payloads is not replaced now", error=str(error))
        finally:
            self._lock.release()

    def _replace(self) -> DataKey:
        key = AESGCM.generate_key(KEY_BITS)
        wrapped = self._vault.wrap_data_key(Secret(base64.b64encode(key).decode())).encode()
        self.newest = DataKey(wrapped, AESGCM(key))
        self._next_rotation = monotonic() + ROTATION_S
        self._remember(wrapped, self.newest.cipher)
        return self.newest

    def ciphers(self, wrapped: Iterable[bytes]) -> dict[bytes, AESGCM | None]:
        """Return the ciphers of those wrapped keys that are already known."""
        # Another thread may replace the dictionary at any time.
        known, now = self._known, monotonic()
        found = {one: known[one] for one in wrapped if one in known}
        return {one: key.cipher for one, key in found.items() if key.cipher is not None or now < key.asked_at + RECHECK_S}

    def unwrap(self, wrapped: Iterable[bytes]) -> dict[bytes, AESGCM | None]:
        """Return the cipher of each wrapped key; None for those that Vault cannot decrypt. Blocking. Raises RetryLater and GiveUp, as Vault does."""
        found = dict[bytes, AESGCM | None]()
        for one in wrapped:
            key = self._vault.unwrap_data_key(one.decode())
            found[one] = AESGCM(base64.b64decode(key.reveal())) if key else None
            self._remember(one, found[one])
        return found

    def _remember(self, wrapped: bytes, cipher: AESGCM | None) -> None:
        if len(self._known) >= MAX_KNOWN_KEYS:
            # Anybody can write payloads with keys that do not exist.
            self._known = {}
        self._known[wrapped] = KnownKey(cipher, monotonic())


class EncryptingCodec(PayloadCodec):
    """Encrypts payloads. It also reads payloads that are not encrypted: those of older histories, and with `encrypts=False` our own.

    A payload that can never be decrypted is passed on unchanged, and its reader treats it like any other invalid payload: a stranger who
    can reach Temporal must not stop a workflow with one. If Vault does not answer, decoding fails, and Temporal tries again.
    """

    def __init__(self, vault: KeyWrapper, *, installation: str, encrypts: bool = True) -> None:
        self._keys = DataKeys(vault)
        # Installations may share a Vault. None of them decrypts what another one has encrypted.
        self._associated_data = f"justenough/{installation}".encode()
        self.encrypts = encrypts

    async def prepare(self) -> None:
        """Create the key that encrypts, unless there is one or none is needed. Raises RetryLater and GiveUp, as Vault does."""
        if self.encrypts:
            await self._encrypting_key()

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypt payloads, if this codec encrypts. Raises RetryLater and GiveUp if there is no key yet and Vault does not wrap one."""
        if not self.encrypts:
            return list(payloads)
        key = await self._encrypting_key()
        if self._keys.rotation_is_due:
            # Nobody waits for it, and it raises nothing.
            _ = asyncio.get_running_loop().run_in_executor(None, self._keys.rotate)
        encrypted = []
        for payload in payloads:
            nonce = os.urandom(NONCE_BYTES)
            data = nonce + key.cipher.encrypt(nonce, payload.SerializeToString(), self._associated_data)
            encrypted.append(Payload(metadata={"encoding": ENCODING, WRAPPED_KEY_FIELD: key.wrapped}, data=data))
        return encrypted

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypt those payloads that are encrypted. Raises RetryLater and GiveUp if a key is unknown and Vault does not answer."""
        wrapped = {one for payload in payloads if (one := _wrapped_key(payload)) is not None}
        ciphers = self._keys.ciphers(wrapped)
        if unknown := wrapped - ciphers.keys():
            ciphers |= await self._unwrap(unknown)
        return [self._decrypt(payload, ciphers) for payload in payloads]

    async def _encrypting_key(self) -> DataKey:
        key = self._keys.newest
        return key if key is not None else await asyncio.to_thread(self._keys.make)

    async def _unwrap(self, unknown: set[bytes]) -> dict[bytes, AESGCM | None]:
        deadline = monotonic() + UNWRAP_PATIENCE_S
        while True:
            try:
                return await asyncio.to_thread(self._keys.unwrap, unknown)
            except RetryLater:
                if monotonic() > deadline:
                    raise
            await asyncio.sleep(UNWRAP_INTERVAL_S)

    def _decrypt(self, payload: Payload, ciphers: dict[bytes, AESGCM | None]) -> Payload:
        wrapped = _wrapped_key(payload)
        cipher = ciphers.get(wrapped) if wrapped is not None else None
        if cipher is None:
            return payload
        try:
            return Payload.FromString(cipher.decrypt(payload.data[:NONCE_BYTES], payload.data[NONCE_BYTES:], self._associated_data))
        except (InvalidTag, ValueError, DecodeError):
            return payload


async def recode_json(body: bytes, change: Recoding) -> str:
    """Return payloads in Temporal's JSON after a codec's `encode` or `decode`. Raises InvalidInput, and what the codec raises."""
    payloads = Payloads()
    try:
        json_format.Parse(body, payloads)
    except (json_format.ParseError, RecursionError, UnicodeDecodeError) as error:
        message = 'must be payloads in Temporal\'s JSON: {"payloads": [{"metadata": {"encoding": BASE64}, "data": BASE64}]}'
        raise InvalidInput("the body", (Problem("", message),)) from error
    return json_format.MessageToJson(Payloads(payloads=await change(payloads.payloads)), indent=None)


def data_converter(codec: EncryptingCodec | None) -> DataConverter:
    """Return the converter of our Temporal clients. A codec that encrypts also encrypts the messages and stack traces of failures."""
    if codec is None or not codec.encrypts:
        return replace(pydantic_data_converter, payload_codec=codec)
    return replace(pydantic_data_converter, payload_codec=codec, failure_converter_class=DefaultFailureConverterWithEncodedAttributes)


def _wrapped_key(payload: Payload) -> bytes | None:
    """Return the wrapped key of an encrypted payload; None if the payload is not encrypted, or its key cannot be one of ours."""
    if payload.metadata.get("encoding") != ENCODING:
        return None
    wrapped = payload.metadata.get(WRAPPED_KEY_FIELD, b"")
    return wrapped if WRAPPED_KEY.fullmatch(wrapped) else None
