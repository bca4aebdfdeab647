"""Sends one message through Apprise to one service, whose URL is a secret: never logged, raised or returned. Blocking: call it from threads.

Apprise supports far more than web services: programs and files on this machine, its desktop, devices. Only the services named here are allowed.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import Any

import apprise
from apprise.common import PersistentStoreMode
from apprise.utils.parse import parse_qsd

from justenough.adapters.outbound.dns_guard import ForbiddenAddress, UnknownHost, require_allowed, resolve
from justenough.domain.core.errors import GiveUp
from justenough.domain.core.secret import Secret
from justenough.domain.integrations.notifications import Notice
from justenough.domain.integrations.retry_policy import DeliveryFault, DeliveryOutcome

HOSTED_SCHEMES = frozenset(
    {
        *("discord", "feishu", "flock", "gchat", "github", "ifttt", "ilert", "incidentio", "lark", "line", "mailersend", "nexmo"),
        *("opsgenie", "pagerduty", "pagertree", "postmark", "pover", "prowl", "push", "pushed", "resend", "sendgrid", "signl4", "sinch"),
        *("slack", "spike", "splunk", "squadcast", "tgram", "threema", "twilio", "twist", "victorops", "vonage", "webex", "wxteams"),
    }
)
"""Services at fixed addresses, over HTTPS."""
SELF_HOSTED_SCHEMES = frozenset(
    {"forms", "gotifys", "jsons", "mailtos", "mmosts", "nctalks", "ntfys", "rockets", "workflows", "xmls", "zulip"}
)
"""Services at an address in the URL, over TLS."""
PLAINTEXT_SCHEMES = frozenset({"form", "gotify", "json", "mailto", "mmost", "nctalk", "ntfy", "rocket", "xml"})
"""The same services without TLS; allowed only in private networks."""
READ_TIMEOUT_S, CONNECT_TIMEOUT_S = 8.0, 4.0


class RejectedServiceUrl(GiveUp):
    """A URL that is not allowed. The message gives the reason, and contains nothing of the URL except its scheme."""


FILE_PARAMETER_PREFIXES = ("template", "pgp", "wkd", "keyfile", "attach")
"""Prefixes of parameters with which some services read a local file, or fetch one from an unchecked address."""


@cache
def load_plugins() -> None:
    """Load Apprise's plugins before the first send: that takes seconds on a busy machine, and must not count against a service's timeout."""
    # These loggers name hosts, paths and sometimes tokens. Silenced by level, so that no handler gets their records.
    for name in ("apprise", "requests", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    apprise.Apprise.instantiate("json://localhost", asset=_asset())


def send(url: Secret, notice: Notice, *, private: bool) -> DeliveryOutcome:
    """Send a notice once and return the outcome."""
    try:
        service = _open_service(url, private=private)
        if not private:
            service.verify_certificate = True
        # Retries and success are decided here, whatever the URL's parameters are.
        service.redirects = service.optional = False
        service.retry = 0
        service.socket_read_timeout, service.socket_connect_timeout = READ_TIMEOUT_S, CONNECT_TIMEOUT_S
        sender = apprise.Apprise(asset=_asset())
        sender.add(service)
        is_sent = sender.notify(title=notice.title, body=notice.body, body_format=apprise.NotifyFormat.TEXT)
        return DeliveryOutcome() if is_sent else DeliveryOutcome(DeliveryFault.AWAY, "the service did not accept the message")
    except (ForbiddenAddress, RejectedServiceUrl) as error:
        return DeliveryOutcome(DeliveryFault.REFUSED, str(error))
    except UnknownHost:
        return DeliveryOutcome(DeliveryFault.AWAY, "its host cannot be resolved")
    except Exception as error:  # noqa: BLE001 - the many plugins raise any type, and their texts may contain the URL
        return DeliveryOutcome(DeliveryFault.AWAY, f"Apprise failed ({type(error).__name__})")


def _open_service(url: Secret, *, private: bool) -> apprise.NotifyBase:
    """Return the service of a URL if it is allowed. Raises RejectedServiceUrl, ForbiddenAddress, UnknownHost."""
    scheme = url.reveal().partition("://")[0].strip().lower()
    if scheme in PLAINTEXT_SCHEMES and not private:
        raise RejectedServiceUrl(f"{scheme}:// is not encrypted: use {scheme}s://, or set `allow_private: true`")
    if scheme not in HOSTED_SCHEMES | SELF_HOSTED_SCHEMES | PLAINTEXT_SCHEMES:
        # Text that is not a scheme may be the secret itself.
        name = f"{scheme}://" if re.fullmatch("[a-z0-9]{1,12}", scheme) else "the URL's scheme"
        raise RejectedServiceUrl(f"{name} is not a supported service (docs/reference/events.md)")
    # Parse the query as Apprise does: parts end at & and at ;, and names may contain escapes.
    _, *queries = url.reveal().split("?")
    names = [name.strip(" +-:").lower() for query in queries for name in parse_qsd(query, simple=True)["qsd"]]  # type: ignore[no-untyped-call]
    if any(name.startswith(FILE_PARAMETER_PREFIXES) for name in names):
        raise RejectedServiceUrl("the URL refers to a file, which is not allowed")
    load_plugins()
    service: Any = apprise.Apprise.instantiate(url.reveal(), asset=_asset())
    if not isinstance(service, apprise.NotifyBase):
        raise RejectedServiceUrl("Apprise cannot parse the URL")
    if scheme not in HOSTED_SCHEMES:
        host = _host_of(service)
        if not host:
            raise RejectedServiceUrl(f"the URL names no host; write {scheme}://HOST/…")
        # Apprise resolves the host again: a change of its address in between is not detected.
        require_allowed(resolve(host, service.port or 443), private=private)
    return service


def _host_of(service: Any) -> str:
    """Return a service's host. For mail that is the server, not the address's domain; for Zulip it contains the organisation."""
    if isinstance(hostname := getattr(service, "hostname", None), str):
        return f"{service.organization}.{hostname}"
    return str(getattr(service, "smtp_host", "") or service.host or "")


@cache
def _asset() -> apprise.AppriseAsset:
    return apprise.AppriseAsset(
        app_id="JustEnough",
        app_desc="JustEnough",
        app_url="",
        async_mode=False,
        storage_mode=PersistentStoreMode.MEMORY,
        http_redirects=False,
        service_timeout=20,
    )
