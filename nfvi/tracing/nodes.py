"""What the nodes of a graph do to memory: views, writes, random numbers."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tag, Tensor, fx
from torch._ops import OpOverload

__all__ = [
    "draws",
    "has_effect",
    "is_view",
    "of_shape_alone",
    "reads_values",
    "schema_of",
    "storage",
    "writes",
    "written",
]


aten = torch.ops.aten
OF_SHAPE_ALONE = (
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
)


def schema_of(op: OpOverload) -> Any:
    """Arguments and returns of an operation, as torch has them."""
    return torch._C._get_schema(op.name().partition(".")[0], op.name().partition(".")[2])


def is_view(node: fx.Node) -> bool:
    """Whether what a node gives lies in the memory of its first argument."""
    if not isinstance(node.target, OpOverload):
        return node.target is operator.getitem
    return _gives_view(node.target)


def writes(node: fx.Node) -> bool:
    """Whether a node changes one of its arguments."""
    return isinstance(node.target, OpOverload) and _is_mutable(node.target)


def draws(node: fx.Node) -> bool:
    """Whether a node draws random numbers."""
    return isinstance(node.target, OpOverload) and _is_random(node.target)


def reads_values(op: OpOverload, args: Sequence[Any]) -> bool:
    """Whether the number or the shape that an operation gives to Python depends on values."""
    tags = op.tags
    if Tag.data_dependent_output in tags:
        return True
    if Tag.dynamic_output_shape not in tags:
        return False
    if op.overloadpacket is not torch.ops.aten.index:
        return True
    # The tag is on an index by whole numbers as well as on one by a mask.
    indices = [index for index in args[1] if isinstance(index, Tensor)]
    return any(index.dtype in (torch.bool, torch.uint8) for index in indices)


def of_shape_alone(node: fx.Node) -> bool:
    """Whether a node looks at no more than shape, dtype and device of what it is given."""
    return node.target in OF_SHAPE_ALONE


def has_effect(node: fx.Node) -> bool:
    """Whether a node does something that no other node asks for: it writes, draws, or checks."""
    if not isinstance(node.target, OpOverload):
        return node.op != "call_function" and node.op != "get_attr"
    return _has_effect(node.target)


def storage(node: fx.Node) -> fx.Node:
    """The node in whose memory the value of a node lies."""
    while node.op == "call_function" and (is_view(node) or writes(node)):
        inputs = node.all_input_nodes
        if not inputs:
            break
        node = inputs[0]
    return node


def written(graph: fx.Graph) -> set[fx.Node]:
    """All nodes whose memory some node of the graph writes to, and the nodes that write."""
    roots = {storage(x) for node in graph.nodes if writes(node) for x in _targets(node)}
    return {node for node in graph.nodes if writes(node) or storage(node) in roots}


def _targets(node: fx.Node) -> list[fx.Node]:
    """The arguments of a node that it writes to, and not those that it only reads."""
    found: list[fx.Node] = []
    for k, argument in enumerate(schema_of(node.target).arguments):  # type: ignore[arg-type]
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = node.args[k] if k < len(node.args) else node.kwargs.get(argument.name)
            fx.node.map_arg(value, found.append)
    return found


@cache
def _gives_view(op: Any) -> bool:
    aliases = [value.alias_info for value in schema_of(op).returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


@cache
def _is_mutable(op: Any) -> bool:
    return bool(schema_of(op).is_mutable)


@cache
def _is_random(op: Any) -> bool:
    return Tag.nondeterministic_seeded in op.tags


@cache
def _has_effect(op: Any) -> bool:
    return _is_mutable(op) or _is_random(op) or not schema_of(op).returns
