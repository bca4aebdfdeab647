"""Connects to Temporal. TLS, API key and metadata come from Temporal's own variables (TEMPORAL_*) and its profile file.

Address and namespace come from there too, unless our settings name them. `explain_failure` determines why a connection failed.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from temporalio.api.enums.v1 import IndexedValueType, TaskQueueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.envconfig import ClientConfigProfile, ClientConfigTLS
from temporalio.service import KeepAliveConfig, RPCError, RPCStatusCode

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.payload_codec import EncryptingCodec, KeyWrapper, data_converter
from justenough.domain.contracts.search_attributes import SEARCH_ATTRIBUTES
from justenough.domain.core.errors import GiveUp, RetryLater

CONNECT_TIMEOUT_S = 5.0
RECONNECT_TIMEOUT = timedelta(seconds=3)
"""Limit for each attempt to connect. The system's own limit is two minutes, and calls have no timeout while the client connects."""
KEEP_ALIVE = KeepAliveConfig(interval_millis=10_000, timeout_millis=5_000)
"""After `interval_millis` of silence the client asks whether the server is there. Without an answer, it connects again.

Temporal's servers reject clients that ask more often.
"""
PROBE_TIMEOUT_S = 2.5
RPC_TIMEOUT = timedelta(seconds=10)
KEYWORD = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
AWAY = frozenset({RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED})
ADDRESS = re.compile(r"\S+:\d{1,5}")
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
"""The first bytes that an HTTP/2 client sends, with empty settings. Only the answer shows the client whether its certificate was accepted."""
REFUSED_CERTIFICATE = re.compile("CERTIFICATE|UNKNOWN_CA|HANDSHAKE_FAILURE")
"""The alerts with which servers refuse a client's certificate, or the lack of one."""
HOW_TO_BE_KNOWN = "set TEMPORAL_TLS_CLIENT_CERT_PATH and TEMPORAL_TLS_CLIENT_KEY_PATH to a certificate that it accepts"
HOW_TO_USE_TLS = "set TEMPORAL_TLS=true, and TEMPORAL_TLS_SERVER_CA_CERT_PATH if its certificate is signed by a private CA"

log = structlog.get_logger()


class TemporalDown(RetryLater):
    """Temporal cannot be reached now. The message names the address, what is wrong and what to do."""


class TemporalProfileInvalid(GiveUp):
    """Temporal's address, its profile or a file that the profile names cannot be used."""


class NamespaceUnfit(GiveUp):
    """The namespace does not exist, or lacks search attributes that cannot be created. The message has the commands to run."""


def with_temporal_profile(settings: Settings) -> Settings:
    """Return the settings with the address and namespace of Temporal's profile, unless our own settings name them. Raises TemporalProfileInvalid."""
    profile = _load_profile()
    found = {"temporal_address": profile.address, "temporal_namespace": profile.namespace}
    named = settings.model_fields_set
    return settings.model_copy(update={name: value for name, value in found.items() if value and name not in named})


def build_codec(vault: KeyWrapper, settings: Settings) -> EncryptingCodec:
    return EncryptingCodec(vault, installation=settings.installation, encrypts=settings.payload_encryption == "on")


async def connect_temporal(settings: Settings, *, identity: str, codec: EncryptingCodec | None = None, lazy: bool = False) -> Client:
    """Return a client of the installation's Temporal. Without a codec it cannot read encrypted payloads. `lazy`: it connects when it is
    first used.

    Raises TemporalDown, TemporalProfileInvalid.
    """
    profile = _load_profile()
    if not ADDRESS.fullmatch(settings.temporal_address):
        raise TemporalProfileInvalid(f"the address of Temporal, {settings.temporal_address!r}, is not a host and port, as in temporal:7233")
    try:
        options = profile.to_client_connect_config()
    except OSError as error:
        raise TemporalProfileInvalid(
            f"Temporal's TLS configuration names {error.filename}, which cannot be read: {error.strerror}"
        ) from error
    try:
        # Not asyncio.wait_for: in Python 3.11 it loses a cancellation that arrives together with the result.
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            return await Client.connect(
                settings.temporal_address,
                namespace=settings.temporal_namespace,
                tls=options.get("tls"),
                api_key=options.get("api_key"),
                rpc_metadata=options.get("rpc_metadata", {}),
                data_converter=data_converter(codec),
                identity=identity,
                lazy=lazy,
                connect_timeout=RECONNECT_TIMEOUT,
                keep_alive_config=KEEP_ALIVE,
            )
    except (RuntimeError, TimeoutError) as error:  # The SDK raises RuntimeError for this.
        why = await asyncio.to_thread(explain_failure, settings.temporal_address, profile)
        raise TemporalDown(f"Temporal at {settings.temporal_address} {why}") from error


def _load_profile() -> ClientConfigProfile:
    try:
        return ClientConfigProfile.load()
    except RuntimeError as error:
        message = f"Temporal's profile cannot be read: {error}; check TEMPORAL_PROFILE, TEMPORAL_CONFIG_FILE and that file"
        raise TemporalProfileInvalid(message) from error


async def missing_search_attributes(client: Client) -> tuple[str, ...]:
    """Return the search attributes that the client's namespace lacks; none if Temporal does not list them. Raises NamespaceUnfit,
    TemporalDown.
    """
    namespace, request = client.namespace, ListSearchAttributesRequest(namespace=client.namespace)
    try:
        listed = await client.operator_service.list_search_attributes(request, retry=True, timeout=RPC_TIMEOUT)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            remedy = f"create it (temporal operator namespace create --namespace {namespace}), or correct JUSTENOUGH_TEMPORAL_NAMESPACE"
            raise NamespaceUnfit(f"Temporal has no namespace {namespace}: {remedy}") from error
        if error.status in AWAY:
            raise TemporalDown(f"Temporal does not list the search attributes of namespace {namespace}: {error.message}") from error
        # The administration may be elsewhere, as in Temporal Cloud. A worker must start anyway: it may have access to revoke.
        log.warning("search attributes cannot be checked; they must exist", namespace=namespace, names=SEARCH_ATTRIBUTES, why=error.message)
        return ()
    known = {**listed.custom_attributes, **listed.system_attributes}
    if wrong := [name for name in SEARCH_ATTRIBUTES if known.get(name, KEYWORD) != KEYWORD]:
        raise NamespaceUnfit(f"Temporal's search attributes {', '.join(wrong)} in namespace {namespace} must have the type Keyword")
    return tuple(name for name in SEARCH_ATTRIBUTES if name not in known)


async def last_polls(client: Client, task_queue: str) -> Mapping[str, datetime | None]:
    """Return when a worker last polled the task queues of jobs and of their endings, by queue. Raises RPCError."""
    jobs, endings = task_queue, f"{task_queue}-endings"

    async def last_poll(queue: str, kind: TaskQueueType.ValueType) -> datetime | None:
        request = DescribeTaskQueueRequest(namespace=client.namespace, task_queue=TaskQueue(name=queue), task_queue_type=kind)
        description = await client.workflow_service.describe_task_queue(request, retry=True, timeout=RPC_TIMEOUT)
        return max((poller.last_access_time.ToDatetime(UTC) for poller in description.pollers), default=None)

    activities = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
    kinds = ((jobs, TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW), (jobs, activities), (endings, activities))
    workflow_poll, activity_poll, ending_poll = await asyncio.gather(*(last_poll(queue, kind) for queue, kind in kinds))
    # One worker polls for workflows and activities, but either poller may fail alone: report the older poll.
    return {jobs: min(workflow_poll, activity_poll) if workflow_poll and activity_poll else None, endings: ending_poll}


async def prepare_namespace(client: Client) -> None:
    """Create the search attributes that the client's namespace lacks. Raises NamespaceUnfit with the commands to run, TemporalDown."""
    namespace, missing = client.namespace, await missing_search_attributes(client)
    if not missing:
        return
    request = AddSearchAttributesRequest(namespace=namespace, search_attributes=dict.fromkeys(missing, KEYWORD))
    try:
        await client.operator_service.add_search_attributes(request, retry=True, timeout=RPC_TIMEOUT)
    except RPCError as error:
        arguments = " ".join(f"--name {name} --type Keyword" for name in missing)
        remedy = f"create them (temporal operator search-attribute create --namespace {namespace} {arguments})"
        why = f"Temporal's namespace {namespace} lacks search attributes, and does not let us create them ({error.message}): {remedy}"
        raise NamespaceUnfit(why) from error
    log.info("search attributes created", namespace=namespace, names=missing)


def explain_failure(address: str, profile: ClientConfigProfile) -> str:
    """Return why a client cannot connect to an address, and what to do, as text that follows the address. Blocks for some seconds."""
    host, _, port = address.rpartition(":")
    tls = profile.tls or (ClientConfigTLS() if profile.api_key else None)
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_TIMEOUT_S) as connection:
            if tls is None or tls.disabled:
                return _explain_plain(connection)
            return _explain_tls(connection, tls, tls.server_name or host)
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        return f"does not answer ({why}); check JUSTENOUGH_TEMPORAL_ADDRESS (or TEMPORAL_ADDRESS) and that server"


def _explain_plain(connection: socket.socket) -> str:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    trusting.set_alpn_protocols(["h2"])
    try:
        trusting.wrap_socket(connection, server_hostname="temporal").close()
    except (ssl.SSLError, OSError):
        return "accepts connections, but does not answer like Temporal; check JUSTENOUGH_TEMPORAL_ADDRESS (or TEMPORAL_ADDRESS)"
    return f"speaks TLS, and we do not: {HOW_TO_USE_TLS}"


def _explain_tls(connection: socket.socket, tls: ClientConfigTLS, name: str) -> str:
    try:
        context = _context_of(tls)
    except (OSError, ssl.SSLError) as error:
        return f"cannot be reached: our own certificate or key cannot be used ({error})"
    try:
        secured = context.wrap_socket(connection, server_hostname=name)
    except ssl.SSLCertVerificationError as error:
        remedy = "set TEMPORAL_TLS_SERVER_CA_CERT_PATH to its CA, or TEMPORAL_TLS_SERVER_NAME to a name in its certificate"
        return f"presents a certificate that we cannot verify ({error.verify_message}); {remedy}"
    except ssl.SSLError as error:
        if REFUSED_CERTIFICATE.search(error.reason or ""):
            return f"refuses us because of our client certificate, or because we have none ({error.reason}); {HOW_TO_BE_KNOWN}"
        return f"does not speak TLS ({error.reason or error}); unset TEMPORAL_TLS and TEMPORAL_API_KEY, or correct the address"
    try:
        with secured:
            secured.sendall(HTTP2_PREFACE)
            if secured.recv(1):
                return (
                    "accepts our TLS connection, but refuses us; check TEMPORAL_API_KEY, and what the client certificate is allowed to do"
                )
        reason = "no reason given"
    except OSError as error:
        reason = str(getattr(error, "reason", None) or error)
    # With TLS 1.3, a server judges our certificate only after the handshake.
    return f"hangs up after the TLS handshake ({reason}), perhaps because it demands a client certificate; {HOW_TO_BE_KNOWN}"


def _context_of(tls: ClientConfigTLS) -> ssl.SSLContext:
    root, certificate, key = tls.server_root_ca_cert, tls.client_cert, tls.client_private_key
    data = root.decode() if isinstance(root, bytes) else root if isinstance(root, str) else None
    context = ssl.create_default_context(cafile=str(root) if isinstance(root, Path) else None, cadata=data)
    context.set_alpn_protocols(["h2"])
    # Certificates given as data cannot be loaded here; without them the server says that one is missing.
    if isinstance(certificate, Path) and isinstance(key, Path):
        context.load_cert_chain(certificate, key)
    return context
