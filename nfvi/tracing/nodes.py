"""What the nodes of a graph do to memory: views, writes, random numbers."""

from __future__ import annotations

import operator

from torch import Tag, Tensor, fx
from torch._ops import OpOverload

__all__ = ["draws", "has_effect", "is_view", "reads_values", "storage", "writes", "written"]


def is_view(node: fx.Node) -> bool:
    """Whether what a node gives lies in the memory of its first argument."""
    if not isinstance(node.target, OpOverload):
        return node.target is operator.getitem
    aliases = [value.alias_info for value in node.target._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def writes(node: fx.Node) -> bool:
    """Whether a node changes one of its arguments."""
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def draws(node: fx.Node) -> bool:
    """Whether a node draws random numbers."""
    return isinstance(node.target, OpOverload) and Tag.nondeterministic_seeded in node.target.tags


def reads_values(node: fx.Node) -> bool:
    """Whether the number or the shape that a node gives to Python depends on values."""
    # Not by Tag.dynamic_output_shape, which an index by whole numbers has as well as one by a mask.
    value = node.meta.get("val")
    shape = value.shape if isinstance(value, Tensor) else ()
    tags = node.target.tags if isinstance(node.target, OpOverload) else ()
    return Tag.data_dependent_output in tags or any(not isinstance(size, int) for size in shape)


def has_effect(node: fx.Node) -> bool:
    """Whether a node does something that no other node asks for: it writes, draws, or checks."""
    if not isinstance(node.target, OpOverload):
        return node.op != "call_function" and node.op != "get_attr"
    return writes(node) or draws(node) or not node.target._schema.returns


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
    roots = {storage(x) for node in graph.nodes if writes(node) for x in node.all_input_nodes}
    return {node for node in graph.nodes if writes(node) or storage(node) in roots}
