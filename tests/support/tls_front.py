"""TLS in front of a server that speaks none, as a proxy or a cloud puts it there."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path


def server_context(authority: Path, name: str, *, demands_client: bool = False) -> ssl.SSLContext:
    """Return the TLS context of a server whose certificate `create_authority` made. `demands_client`: a client needs one of the same authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.with_name(f"{name}.pem"))
    context.set_alpn_protocols(["h2"])
    if demands_client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority)
    return context


@asynccontextmanager
async def serve_tls(behind: str, context: ssl.SSLContext) -> AsyncIterator[str]:
    """Terminate TLS in front of a server; yield the address."""
    host, _, port = behind.rpartition(":")

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, back_writer), pump(back_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
