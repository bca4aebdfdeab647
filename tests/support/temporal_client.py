"""A client of a stack's Temporal for tests. It reads what the stack has encrypted, with the administrator's rights, and encrypts nothing itself."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowHistory

from justenough.adapters.payload_codec import ENCODING, EncryptingCodec, data_converter
from justenough.adapters.vault.transit import TransitKeys
from justenough.domain.core.secret import Secret
from worker.stack.stack_file import Stack

ENCODING_IN_JSON = base64.b64encode(ENCODING).decode()


def reading_codec(stack: Stack, installation: str = "dev") -> EncryptingCodec:
    """Return a codec that decrypts what the stack's workers and consoles have encrypted."""
    assert stack.vault
    vault = TransitKeys(stack.vault)
    vault.login_token(Secret(stack.admin_token_file.read_text().strip()))
    return EncryptingCodec(vault, installation=installation, encrypts=False)


async def connect(stack: Stack, installation: str = "dev") -> Client:
    """Return a client that reads everything and writes plain text, as a stranger without our keys would."""
    return await Client.connect(str(stack.temporal), data_converter=data_converter(reading_codec(stack, installation)))


async def decrypted_payloads(history: WorkflowHistory, codec: EncryptingCodec) -> list[bytes]:
    """Return the content of each payload of a history that is encrypted."""
    found = [json_format.ParseDict(node, Payload()) for node in _encrypted_nodes(json.loads(history.to_json()))]
    return [payload.data for payload in await codec.decode(found)]


def _encrypted_nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        metadata = node.get("metadata")
        if isinstance(metadata, dict) and metadata.get("encoding") == ENCODING_IN_JSON:
            yield node
        for value in node.values():
            yield from _encrypted_nodes(value)
    elif isinstance(node, list):
        for value in node:
            yield from _encrypted_nodes(value)
