"""One message through Apprise to one service whose URL is a secret. Blocking: call it from threads. Nothing of the URL is logged, raised or returned.

Apprise knows far more than web services: programs and files on this machine, its desktop, devices. Only those that are named here are spoken to.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import Any

import apprise
from apprise.common import PersistentStoreMode
from apprise.utils.parse import parse_qsd

from justenough.adapters.outbound.dns_guard import NotReached, UnknownHost, require_allowed, resolve
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
"""Services at addresses of their own, over HTTPS."""
SELF_HOSTED_SCHEMES = frozenset(
    {"forms", "gotifys", "jsons", "mailtos", "mmosts", "nctalks", "ntfys", "rockets", "workflows", "xmls", "zulip"}
)
"""Services at an address that the URL names, over TLS."""
PLAINTEXT_SCHEMES = frozenset({"form", "gotify", "json", "mailto", "mmost", "nctalk", "ntfy", "rocket", "xml"})
"""The same without TLS: in one's own network only."""
READ_TIMEOUT_S, CONNECT_TIMEOUT_S = 8.0, 4.0


class NotSpokenTo(GiveUp):
    """A URL that nothing is sent to; the message says why, and holds nothing of it but its scheme."""


FILE_PARAMETER_PREFIXES = ("template", "pgp", "wkd", "keyfile", "attach")
"""How parameters begin with which some services read a file of this machine, or fetch one from an address that nobody has looked at."""


@cache
def load_plugins() -> None:
    """Have Apprise load its plugins, all of which it loads for any: that takes seconds on a busy machine, which are no service's fault."""
    _silence_loggers()
    apprise.Apprise.instantiate("json://localhost", asset=_asset())


def send(url: Secret, notice: Notice, *, private: bool) -> DeliveryOutcome:
    """Send it once and return what became of it."""
    try:
        service = _open_service(url, private=private)
        if not private:
            service.verify_certificate = True
        return _notify(service, notice)
    except (NotReached, NotSpokenTo) as error:
        return DeliveryOutcome(DeliveryFault.REFUSED, str(error))
    except UnknownHost:
        return DeliveryOutcome(DeliveryFault.AWAY, "its host is not known")
    except Exception as error:  # noqa: BLE001 - a hundred plugins raise what they like, and their texts may hold the URL
        return DeliveryOutcome(DeliveryFault.AWAY, f"Apprise failed ({type(error).__name__})")


def _open_service(url: Secret, *, private: bool) -> apprise.NotifyBase:
    """Return the service that a URL names, where it may be spoken to. Raises NotSpokenTo, NotReached, UnknownHost."""
    scheme = url.reveal().partition("://")[0].strip().lower()
    if scheme not in HOSTED_SCHEMES | SELF_HOSTED_SCHEMES | (PLAINTEXT_SCHEMES if private else frozenset()):
        raise NotSpokenTo(_why_no_scheme(scheme))
    if _has_file_parameter(url.reveal()):
        raise NotSpokenTo("the URL names a file of this machine, or one to be fetched")
    load_plugins()
    service = apprise.Apprise.instantiate(url.reveal(), asset=_asset())
    if not isinstance(service, apprise.NotifyBase):
        raise NotSpokenTo("Apprise does not understand the URL")
    if scheme not in HOSTED_SCHEMES:
        _require_allowed_host(service, private=private)
    return service


def _has_file_parameter(url: str) -> bool:
    """Whether a URL has a parameter that names a file. Read as Apprise reads it: parts end at & and at ;, and names may be written in escapes."""
    _, *queries = url.split("?")
    names = [name.strip(" +-:").lower() for query in queries for name in parse_qsd(query, simple=True)["qsd"]]  # type: ignore[no-untyped-call]
    return any(name.startswith(FILE_PARAMETER_PREFIXES) for name in names)


def _why_no_scheme(scheme: str) -> str:
    if scheme in PLAINTEXT_SCHEMES:
        return f"{scheme}:// is not encrypted: use {scheme}s://, or `allow_private: true`"
    # What is no scheme may be the secret itself.
    named = f"{scheme}://" if re.fullmatch("[a-z0-9]{1,12}", scheme) else "the URL's scheme"
    return f"{named} is not among the services that are spoken to (docs/reference/events.md)"


def _require_allowed_host(service: Any, *, private: bool) -> None:
    """Look up where a service is. Apprise looks it up again: whoever changes the name's address in between is not caught."""
    host = _host_of(service)
    if not host:
        raise NotSpokenTo("the URL names no host")
    require_allowed(resolve(host, service.port or 443), private=private)


def _host_of(service: Any) -> str:
    """Return where a service is: of mail the server, not the address's domain; of Zulip the organisation's name within the host's."""
    if isinstance(hostname := getattr(service, "hostname", None), str):
        return f"{service.organization}.{hostname}"
    return str(getattr(service, "smtp_host", "") or service.host or "")


def _notify(service: apprise.NotifyBase, notice: Notice) -> DeliveryOutcome:
    # Whatever its URL says of these: when to try again, and what counts as taken, is ours to know.
    service.redirects = service.optional = False
    service.retry = 0
    service.socket_read_timeout, service.socket_connect_timeout = READ_TIMEOUT_S, CONNECT_TIMEOUT_S
    one = apprise.Apprise(asset=_asset())
    one.add(service)
    taken = one.notify(title=notice.title, body=notice.body, body_format=apprise.NotifyFormat.TEXT)
    return DeliveryOutcome() if taken else DeliveryOutcome(DeliveryFault.AWAY, "the service did not take it")


@cache
def _silence_loggers() -> None:
    """Have no log of Apprise's, or of what it sends with: they name hosts, paths and sometimes tokens."""
    for name in ("apprise", "requests", "urllib3"):
        # By level, not by handler: whoever listens, there is nothing to hear.
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


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
