"""Folds values that are known beforehand into Cedar policies, so that Cedar is asked once and not once per tier. No I/O, no clock.

The result means exactly the same: a policy that is dropped could neither hold nor err. It rests on the policies having passed
schema validation, which leaves arithmetic, extension functions and attributes of named entities as the only things that can err.
Shapes: cedarpy.pst, which mirrors the Rust crate's policy syntax trees.
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
NEVER_ERR = frozenset({*EQUALITY, *ORDER, "and", "or", "not", "in", "contains", "contains_all", "contains_any", "has_tag", "is_empty"})


@dataclass(frozen=True, slots=True)
class PartialRequest:
    """What a request is known to ask: the action, the resource, and values of attributes."""

    action: pst.EntityUid
    groups: frozenset[pst.EntityUid]
    """The action itself and every action group of the schema that it is in."""
    resource: pst.EntityUid
    known: KnownValues


def fold_policy(policy: pst.Template, question: PartialRequest) -> pst.Template | None:
    """Return what is left of a policy, or None where it cannot hold."""
    if _is_other_action(policy.action, question) or _is_other_resource(policy.resource, question.resource):
        return None
    clauses = tuple(replace(clause, expr=fold_expression(clause.expr, question)) for clause in policy.clauses)
    if any(_never_holds(clause) for clause in clauses) and all(_cannot_err(clause.expr) for clause in clauses):
        return None
    return replace(policy, clauses=tuple(clause for clause in clauses if not _always_holds(clause)))


def fold_expression(expr: pst.Expr, question: PartialRequest) -> pst.Expr:
    """Return an expression with the same value and the same errors, known values filled in and what follows from them worked out."""
    match expr:
        case pst.GetAttr(base=pst.Var(name=variable), attr=attribute) if (variable, attribute) in question.known:
            return question.known[variable, attribute]
        case pst.BinaryOp(op="eq", left=pst.Var(name="resource"), right=pst.EntityLit(value=uid)):
            return pst.BoolLit(value=uid == question.resource)
        case pst.BinaryOp():
            return _fold_binary(expr, fold_expression(expr.left, question), fold_expression(expr.right, question))
        case pst.UnaryOp(op="not"):
            arg = fold_expression(expr.arg, question)
            return pst.BoolLit(value=not arg.value) if isinstance(arg, pst.BoolLit) else replace(expr, arg=arg)
        case pst.IfThenElse():
            return _fold_choice(expr, question)
    return expr


def uses_whole_context(policy: pst.Template) -> bool:
    """Whether a policy uses `context` other than by attribute, so that nothing can be filled in."""
    return any(_uses_whole_context(clause.expr) for clause in policy.clauses)


def mentioned_attributes(policies: Iterable[pst.Template]) -> frozenset[tuple[str, str]]:
    """Return the attributes that policies look at, as `("principal", "environment")`; nothing else can change what they say."""
    return frozenset(pair for policy in policies for clause in policy.clauses for pair in _attributes_in(clause.expr))


def _attributes_in(node: Any) -> Iterator[tuple[str, str]]:
    match node:
        case pst.GetAttr(base=pst.Var(name=variable), attr=attribute):
            yield variable, attribute
        case pst.HasAttr(base=pst.Var(name=variable), attrs=attributes):
            yield variable, attributes[0]
        case pst.GetAttr(base=pst.IfThenElse()) | pst.HasAttr(base=pst.IfThenElse()):
            # Whose attribute it is depends on the answer.
            yield from ((variable, ANY_ATTRIBUTE) for variable in ("principal", "resource", "context"))
    for inner in _child_nodes(node):
        yield from _attributes_in(inner)


def _fold_binary(expr: pst.BinaryOp, left: pst.Expr, right: pst.Expr) -> pst.Expr:
    match expr.op, left, right:
        case ("and", pst.BoolLit(value=False), _) | ("or", pst.BoolLit(value=True), _):
            return left
        case ("and", pst.BoolLit(value=True), _) | ("or", pst.BoolLit(value=False), _):
            return right
        case ("and", _, pst.BoolLit(value=True)) | ("or", _, pst.BoolLit(value=False)):
            return left
        case ("and", _, pst.BoolLit(value=False)) | ("or", _, pst.BoolLit(value=True)) if _cannot_err(left):
            return right
    return _compare_literals(expr.op, left, right) or replace(expr, left=left, right=right)


def _compare_literals(op: str, left: pst.Expr, right: pst.Expr) -> pst.BoolLit | None:
    if isinstance(left, pst.LongLit) and isinstance(right, pst.LongLit) and op in ORDER:
        return pst.BoolLit(value=ORDER[op](left.value, right.value))
    if isinstance(left, LiteralNode) and type(left) is type(right) and op in EQUALITY:
        return pst.BoolLit(value=EQUALITY[op](left, right))
    return None


def _fold_choice(expr: pst.IfThenElse, question: PartialRequest) -> pst.Expr:
    cond = fold_expression(expr.cond, question)
    if isinstance(cond, pst.BoolLit):
        return fold_expression(expr.then_expr if cond.value else expr.else_expr, question)
    return replace(
        expr, cond=cond, then_expr=fold_expression(expr.then_expr, question), else_expr=fold_expression(expr.else_expr, question)
    )


def _is_other_action(scope: pst.ActionConstraint, question: PartialRequest) -> bool:
    match scope:
        case pst.ActionEq(entity=uid):
            return uid != question.action
        case pst.ActionIn(entities=uids):
            return not question.groups & set(uids)
    return False


def _is_other_resource(scope: pst.PrincipalOrResourceConstraint, resource: pst.EntityUid) -> bool:
    return isinstance(scope, pst.ScopeEq) and scope.entity != resource


def _never_holds(clause: pst.Clause) -> bool:
    return clause.expr == (FALSE if isinstance(clause, pst.When) else TRUE)


def _always_holds(clause: pst.Clause) -> bool:
    return clause.expr == (TRUE if isinstance(clause, pst.When) else FALSE)


def _cannot_err(node: Any) -> bool:
    match node:
        case pst.BinaryOp(op=op) | pst.UnaryOp(op=op) if op not in NEVER_ERR:
            return False
        case pst.GetAttr(base=base) if not isinstance(base, pst.Var | pst.GetAttr):
            return False
    return all(_cannot_err(inner) for inner in _child_nodes(node))


def _uses_whole_context(node: Any) -> bool:
    match node:
        case pst.Var(name="context"):
            return True
        case pst.GetAttr(base=pst.Var()) | pst.HasAttr(base=pst.Var()):
            return False
    return any(_uses_whole_context(inner) for inner in _child_nodes(node))


def _child_nodes(node: Any) -> list[Any]:
    values = [getattr(node, field.name) for field in fields(node)] if is_dataclass(node) else []
    several = [
        list(value.values()) if isinstance(value, Mapping) else list(value) for value in values if isinstance(value, Mapping | tuple)
    ]
    return [value for value in values if is_dataclass(value)] + [inner for group in several for inner in group if is_dataclass(inner)]
