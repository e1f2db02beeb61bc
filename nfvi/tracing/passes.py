"""Passes that take work out of a graph and leave every number as it was, to the last bit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from nfvi.tracing.nodes import draws, has_effect, is_view, of_shape_alone, written
from nfvi.tracing.record import Recording

__all__ = ["clean", "failures_as_outputs"]

aten = torch.ops.aten
# Without autograd these give what they are given.
NO_OPERATION = (aten.detach.default, aten.alias.default, aten.lift_fresh.default)
Key = tuple[Any, ...]


def clean(module: Recording) -> None:
    """Remove dead, empty and repeated operations, and compute what depends on no input."""
    graph = module.graph
    graph.eliminate_dead_code(has_effect)
    # Views that change neither shape nor layout stay, too: without them realnvp and nsf on pot1
    # lost their last bit, for a tenth of the time of a step of planar*8.
    _drop_no_operations(graph)
    _fold(module)
    while _merge(module):
        pass
    graph.eliminate_dead_code(has_effect)


CHECK = "aten._linalg_check_errors.default"
"""The operation that raises where a factorisation failed."""


def failures_as_outputs(module: Recording) -> int:
    """Give back what factorisations say of their failure, in place of an error; how many there are.

    TorchScript drops ``_linalg_check_errors``, which returns nothing, and would go on with a factor
    that is none. What it looks at (0 where all is well) becomes an output behind the others.
    """
    graph = module.graph
    infos = []
    for node in list(graph.nodes):
        if str(node.target) == CHECK:
            infos.append(node.args[0])
            graph.erase_node(node)
    output = graph.output_node()
    values: Any = output.args[0]
    output.args = ((*values, *infos),)
    return len(infos)


def _drop_no_operations(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        if node.target in NO_OPERATION:
            node.replace_all_uses_with(node.all_input_nodes[0])
            graph.erase_node(node)


def _fold(module: Recording) -> None:
    """Compute what depends on no input, once.

    A view of a constant stays a view: written out, an expanded one takes much memory, and products
    with it run by other kernels, which round otherwise. Zeros that are given back stay too, since
    they are the caller's then.
    """
    graph, touched = module.graph, written(module.graph)
    known: dict[fx.Node, Any] = {}
    with torch.no_grad():
        for node in graph.nodes:
            if node in touched:
                continue
            if node.op == "get_attr":
                known[node] = _attribute(module, node)
            elif of_shape_alone(node) and graph.output_node() not in node.users:
                known[node] = module.values[node]
            elif (
                node.op == "call_function"
                and not has_effect(node)
                and all(x in known for x in node.all_input_nodes)
            ):
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
                known[node] = node.target(*args, **kwargs)
    for k, node in enumerate(_edge(graph, known)):
        name = f"_folded_{k}"
        module.register_buffer(name, known[node].detach())
        with graph.inserting_before(node):
            node.replace_all_uses_with(graph.get_attr(name))
    module.values.clear()
    graph.eliminate_dead_code(has_effect)


def _edge(graph: fx.Graph, known: dict[fx.Node, Any]) -> list[fx.Node]:
    """The computed constants that the rest of the graph needs, behind their views."""
    needed: dict[fx.Node, None] = {}
    waiting = [n for n in known if any(user not in known for user in n.users)]
    seen: set[fx.Node] = set()
    while waiting:
        node = waiting.pop()
        if node in seen or node.op == "get_attr":
            continue
        seen.add(node)
        if isinstance(known[node], Tensor) and not is_view(node):
            needed[node] = None
        else:
            waiting.extend(node.all_input_nodes)
    return [node for node in graph.nodes if node in needed]


def _merge(module: Recording) -> int:
    """Make one of operations that are the same; how many are gone."""
    graph, touched = module.graph, written(module.graph)
    seen: dict[Key, fx.Node] = {}
    gone = 0
    for node in list(graph.nodes):
        if node in touched or any(x in touched for x in node.all_input_nodes):
            continue
        if node.op == "get_attr":
            key: Key = ("attribute", id(_attribute(module, node)))
        elif node.op == "call_function" and not has_effect(node) and not draws(node):
            key = (node.target, _key(node.args), _key(node.kwargs))
        else:
            continue
        first = seen.setdefault(key, node)
        if first is not node:
            node.replace_all_uses_with(first)
            graph.erase_node(node)
            gone += 1
    return gone


def _key(value: Any) -> Key:
    if isinstance(value, fx.Node):
        return ("node", value.name)
    if isinstance(value, list | tuple):
        return tuple(_key(item) for item in value)
    if isinstance(value, dict):
        return tuple((name, _key(item)) for name, item in sorted(value.items()))
    return (type(value).__name__, repr(value))  # repr tells 0.0 from -0.0, the type 1 from 1.0


def _attribute(module: Recording, node: fx.Node) -> Any:
    value: Any = module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value
