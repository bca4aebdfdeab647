"""Folds known values into Cedar policies, so that Cedar evaluates a request once and not once per tier. No I/O, no clock.

The result has exactly the same meaning: a dropped policy could neither apply nor raise an error. This requires that the policies passed
schema validation, after which only arithmetic, extension functions and attributes of named entities can raise errors.
The syntax trees are those of cedarpy.pst, which mirrors the Rust crate's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from operator import eq, ge, gt, le, lt, ne
from typing import Any

from cedarpy import pst

LiteralNode = pst.BoolLit | pst.LongLit | pst.StringLit
KnownValues = Mapping[tuple[str, str], LiteralNode]
"""Values by variable and attribute: `("context", "approved_tier")`."""

TRUE, FALSE = pst.BoolLit(value=True), pst.BoolLit(value=False)
EQUALITY: Mapping[str, Callable[[Any, Any], bool]] = {"eq": eq, "not_eq": ne}
ORDER: Mapping[str, Callable[[Any, Any], bool]] = {"less": lt, "less_eq": le, "greater": gt, "greater_eq": ge}
ANY_ATTRIBUTE = "*"
ALWAYS_HOLDS, NEVER_HOLDS = {pst.When: TRUE, pst.Unless: FALSE}, {pst.When: FALSE, pst.Unless: TRUE}
"""The literals with which a clause is always satisfied, or never satisfied."""
CANNOT_ERR = frozenset({*EQUALITY, *ORDER, "and", "or", "not", "in", "contains", "contains_all", "contains_any", "has_tag", "is_empty"})


@dataclass(frozen=True, slots=True)
class PartialRequest:
    """The known parts of a request: action, resource and some attributes."""

    action: pst.EntityUid
    groups: frozenset[pst.EntityUid]
    """The action, and every action group of the schema that contains it."""
    resource: pst.EntityUid
    known: KnownValues


def fold_policy(policy: pst.Template, request: PartialRequest) -> pst.Template | None:
    """Return what remains of a policy once the known values are filled in; None if it cannot apply to the request."""
    match policy.action:
        case pst.ActionEq(entity=uid) if uid != request.action:
            return None
        case pst.ActionIn(entities=uids) if not request.groups & set(uids):
            return None
    if isinstance(policy.resource, pst.ScopeEq) and policy.resource.entity != request.resource:
        return None
    clauses = tuple(replace(clause, expr=fold_expression(clause.expr, request)) for clause in policy.clauses)
    if any(clause.expr == NEVER_HOLDS[type(clause)] for clause in clauses) and all(_cannot_err(clause.expr) for clause in clauses):
        return None
    return replace(policy, clauses=tuple(clause for clause in clauses if clause.expr != ALWAYS_HOLDS[type(clause)]))


def fold_expression(expr: pst.Expr, request: PartialRequest) -> pst.Expr:
    """Return an expression with the same value and the same errors, in which known values are filled in and evaluated."""
    match expr:
        case pst.GetAttr(base=pst.Var(name=variable), attr=attribute) if (variable, attribute) in request.known:
            return request.known[variable, attribute]
        case pst.BinaryOp(op="eq", left=pst.Var(name="resource"), right=pst.EntityLit(value=uid)):
            return pst.BoolLit(value=uid == request.resource)
        case pst.BinaryOp():
            return _fold_binary(expr, fold_expression(expr.left, request), fold_expression(expr.right, request))
        case pst.UnaryOp(op="not"):
            arg = fold_expression(expr.arg, request)
            return pst.BoolLit(value=not arg.value) if isinstance(arg, pst.BoolLit) else replace(expr, arg=arg)
        case pst.IfThenElse():
            cond, then, other = (fold_expression(part, request) for part in (expr.cond, expr.then_expr, expr.else_expr))
            if not isinstance(cond, pst.BoolLit):
                expr = replace(expr, cond=cond, then_expr=then, else_expr=other)
            else:
                expr = then if cond.value else other
        case _:
            # Also within sets, records and other operators: Cedar does not get the values at each tier.
            expr = replace(expr, **{field.name: _fold_part(getattr(expr, field.name), request) for field in fields(expr)})
    return expr


def _fold_part(part: Any, request: PartialRequest) -> Any:
    """Return a part of an expression, in which each expression is folded; names and entities stay as they are."""
    if isinstance(part, tuple):
        return tuple(_fold_part(item, request) for item in part)
    if isinstance(part, Mapping):
        return pst.FrozenMap({name: _fold_part(value, request) for name, value in part.items()})
    return fold_expression(part, request) if isinstance(part, pst.Expr) else part


def uses_whole_context(policy: pst.Template) -> bool:
    """Whether a policy uses `context` other than by attribute; then none of its attributes can be filled in."""
    context, nodes = pst.Var(name="context"), list(walk(policy.clauses))
    attributes = sum(isinstance(node, pst.GetAttr | pst.HasAttr) and node.base == context for node in nodes)
    return nodes.count(context) > attributes


def mentioned_attributes(policies: Iterable[pst.Template]) -> frozenset[tuple[str, str]]:
    """Return the attributes that policies read, as `("principal", "environment")`; no others can change the result."""
    mentioned: set[tuple[str, str]] = set()
    for node in walk(tuple(policy.clauses for policy in policies)):
        match node:
            case pst.GetAttr(base=pst.Var(name=variable), attr=attribute) | pst.HasAttr(base=pst.Var(name=variable), attrs=(attribute, *_)):
                mentioned.add((variable, attribute))
            case pst.GetAttr(base=base) | pst.HasAttr(base=base) if not isinstance(_innermost_base(base), pst.Var):
                # A condition decides which variable's attribute is read, or a record contains the variable.
                mentioned.update((variable, ANY_ATTRIBUTE) for variable in ("principal", "resource", "context"))
    return frozenset(mentioned)


def _innermost_base(expr: pst.Expr) -> pst.Expr:
    while isinstance(expr, pst.GetAttr):
        expr = expr.base
    return expr


def walk(tree: object) -> Iterator[Any]:
    """Yield every node of a syntax tree, or of a tuple of them, in no particular order."""
    stack = [tree]
    while stack:
        value = stack.pop()
        if isinstance(value, Mapping):
            stack += value.values()
        elif isinstance(value, tuple):
            stack += value
        elif is_dataclass(value):
            yield value
            stack += (getattr(value, field.name) for field in fields(value))


def _fold_binary(expr: pst.BinaryOp, left: pst.Expr, right: pst.Expr) -> pst.Expr:
    match expr.op, left, right:
        case (
            ("and", pst.BoolLit(value=False), _)
            | ("and", _, pst.BoolLit(value=True))
            | ("or", pst.BoolLit(value=True), _)
            | ("or", _, pst.BoolLit(value=False))
        ):
            return left
        case ("and", pst.BoolLit(value=True), _) | ("or", pst.BoolLit(value=False), _):
            return right
        case ("and", _, pst.BoolLit(value=False)) | ("or", _, pst.BoolLit(value=True)) if _cannot_err(left):
            return right
        case op, pst.LongLit(value=number), pst.LongLit(value=other) if op in ORDER:
            return pst.BoolLit(value=ORDER[op](number, other))
        case op, _, _ if op in EQUALITY and isinstance(left, LiteralNode) and type(left) is type(right):
            return pst.BoolLit(value=EQUALITY[op](left, right))
    return replace(expr, left=left, right=right)


def _cannot_err(expr: pst.Expr) -> bool:
    return not any(
        (isinstance(node, pst.BinaryOp | pst.UnaryOp) and node.op not in CANNOT_ERR)
        or (isinstance(node, pst.GetAttr) and not isinstance(node.base, pst.Var | pst.GetAttr))
        for node in walk(expr)
    )
