"""Maps words that people may type (from kubectl, gh, docker and everyday speech) to the commands that they mean. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

EVERYWHERE: Mapping[str, str] = {
    **dict.fromkeys(("ls", "all"), "list"),
    **dict.fromkeys(("get", "describe", "view", "info", "inspect", "status", "details"), "show"),
    **dict.fromkeys(("add", "new"), "create"),
    **dict.fromkeys(("rm", "remove", "delete", "stop"), "end"),
}
"""By the word that people type instead, a command of any group that has that command."""
OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("run", "launch", "submit"), ("job run",)),
    **dict.fromkeys(("ps", "ls", "list"), ("job list", "request list", "credential list")),
    **dict.fromkeys(("show", "get", "describe"), ("job show", "request show", "catalog show")),
    **dict.fromkeys(("log", "logs"), ("job logs",)),
    **dict.fromkeys(("stop", "cancel"), ("job cancel", "job kill", "down")),
    **dict.fromkeys(("kill", "abort"), ("job kill",)),
    **dict.fromkeys(("start", "serve"), ("up",)),
    **{name: (f"request {name}",) for name in ("approve", "deny", "withdraw", "claim", "break-glass")},
    **dict.fromkeys(("inbox", "pending", "approvals"), ("request list --mine",)),
    "revoke": ("credential revoke", "job kill"),
    **dict.fromkeys(("verify", "prove"), ("credential prove", "ledger verify")),
    **dict.fromkeys(("can-i", "auth", "explain", "why", "who-can"), ("policy explain", "catalog show")),
    **dict.fromkeys(("audit", "events", "history"), ("ledger list", "job timeline")),
    **dict.fromkeys(("search", "grep", "query"), ("find",)),
    **dict.fromkeys(("context", "contexts", "use"), ("profile list", "profile use")),
    **dict.fromkeys(("signin", "sign-in"), ("login",)),
    **dict.fromkeys(("signout", "sign-out"), ("logout",)),
    "agent": ("find", "job list --agent"),
    "resource": ("catalog list", "catalog show"),
    **dict.fromkeys(
        ("job stop", "job end", "job delete", "job rm", "job remove", "job terminate", "job abort"), ("job cancel", "job kill")
    ),
    **dict.fromkeys(("job start", "job launch", "job submit", "job create", "job new", "job apply"), ("job run",)),
    **dict.fromkeys(("job log", "job output", "job tail"), ("job logs",)),
    **dict.fromkeys(("job explain", "job why"), ("job show", "policy explain")),
    **dict.fromkeys(("job history", "job events", "job ledger"), ("job timeline",)),
    **dict.fromkeys(("job wait", "job follow", "job attach"), ("job watch",)),
    **dict.fromkeys(("job verify", "job prove"), ("credential prove",)),
    **dict.fromkeys(("job approve", "job deny"), ("request list --job", "request approve", "request deny")),
    "job revoke": ("job kill", "credential revoke"),
    **dict.fromkeys(("job shrink", "job size", "job sizing", "job rightsize"), ("job tighten",)),
    **dict.fromkeys(("request explain", "request why"), ("request show",)),
    **dict.fromkeys(("request reject", "request decline", "request refuse"), ("request deny",)),
    **dict.fromkeys(("request accept", "request allow", "request grant", "request sign"), ("request approve",)),
    **dict.fromkeys(("request cancel", "request revoke", "request undo", "request unapprove"), ("request withdraw",)),
    **dict.fromkeys(("request take", "request assign"), ("request claim",)),
    "request unclaim": ("request release",),
    **dict.fromkeys(("request create", "request new"), ("job run",)),
    "request review": ("review answer", "request show"),
    **dict.fromkeys(("credential verify", "credential check", "credential proof"), ("credential prove",)),
    **dict.fromkeys(("credential kill", "credential end", "credential delete", "credential rm", "credential stop"), ("credential revoke",)),
    **dict.fromkeys(
        ("credential show", "credential get", "credential describe", "credential view"), ("credential list", "job show", "find")
    ),
    **dict.fromkeys(("policy show", "policy why", "policy simulate", "policy eval", "policy can-i"), ("policy explain",)),
    **dict.fromkeys(("policy lint", "policy validate"), ("policy check",)),
    "catalog explain": ("catalog show", "policy explain"),
    **dict.fromkeys(("catalog validate", "catalog lint"), ("catalog check",)),
    **dict.fromkeys(("ledger show", "ledger get"), ("ledger list", "job timeline")),
    **dict.fromkeys(("ledger check", "ledger prove"), ("ledger verify",)),
    **dict.fromkeys(("schedule resume", "schedule start", "schedule enable"), ("schedule unpause",)),
    **dict.fromkeys(("schedule stop", "schedule disable", "schedule suspend"), ("schedule pause",)),
    **dict.fromkeys(("schedule trigger", "schedule fire"), ("schedule run",)),
    **dict.fromkeys(("webhook retry", "webhook redeliver"), ("webhook resend",)),
    **dict.fromkeys(("profile switch", "profile choose", "profile set"), ("profile use",)),
    **dict.fromkeys(("profile create", "profile add", "profile new"), ("login --profile NAME",)),
    **dict.fromkeys(("profile delete", "profile remove", "profile rm"), ("logout --profile NAME",)),
}
"""Commands by the words that people type instead of them."""


def commands_meant(group: Sequence[str], typed: str, known: Container[str]) -> tuple[str, ...]:
    """Return the commands that a word in a group may mean; empty if it is not a known other name. `known`: the group's commands."""
    path = " ".join(group)
    if found := OTHER_NAMES.get(f"{path} {typed}".strip()):
        return found
    name = EVERYWHERE.get(typed)
    return (f"{path} {name}",) if path and name in known else ()
