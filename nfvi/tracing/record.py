"""A function of tensors run once, with all its operations written down as a graph."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tag, Tensor, fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode

from nfvi.tracing.nodes import draws, of_shape_alone, reads_values, storage, writes
from nfvi.tracing.opaque import Opaque, OpaqueFunction, operation

__all__ = ["NoGraphError", "Recording", "opaque", "recorded"]

aten = torch.ops.aten
READERS = (Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__dlpack__, Tensor.data_ptr)
"""What hands a tensor's numbers to another library, where no operation of torch is seen."""


class NoGraphError(RuntimeError):
    """A function does what a graph cannot hold; the message says what."""


class Recording(torch.nn.Module):
    """A graph of operations, with the tensors that it holds as buffers.

    Attributes:
        graph: the operations.
        opaque: functions that it calls, and keeps.
        values: of operations that depend on shapes alone, until the graph is cleaned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.opaque: list[Opaque] = []
        self.values: dict[fx.Node, Tensor] = {}

    def code(self) -> fx.GraphModule:
        """The graph as a function in Python, which takes longer to write than other ways to run."""
        return fx.GraphModule(self, self.graph)


def recorded(function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor]) -> Recording:
    """The operations of ATen, below autograd and vmap, that a function does at some inputs.

    It runs with these very numbers: a twentieth of a millisecond an operation, where torch's
    ``make_fx`` on fake tensors takes over half a millisecond.

    Raises:
        NoGraphError: it draws random numbers, or Python reads a number that depends on the inputs.
        Exception: whatever the function raises.
    """
    record = _Record()
    own = [x.detach() for x in inputs]
    for k, x in enumerate(own):
        record.input(x, k)
    try:
        with record, _NoReading(record):
            values = function(*own)
    except Exception as error:
        # The function may have made another error of it.
        if record.refused is not None:
            raise NoGraphError(record.refused) from error
        raise
    if record.refused is not None:
        raise NoGraphError(record.refused)
    return record.ended(values)


def opaque(function: OpaqueFunction, points: Tensor) -> tuple[Tensor, Tensor]:
    """``function(points)``, as one operation where a graph is being recorded.

    Args:
        function: from points (n, d) to values (n) and gradients (n, d) of their dtype, apart from
            autograd. It may do whatever Python can, and gives the same for the same points.
        points: (n, d).
    """
    record = _get_current_dispatch_mode()
    if isinstance(record, _Record):
        return operation(points, record.hold(function))
    return function(points)


class _Record(TorchDispatchMode):
    """Writes down what is done while it is entered.

    Attributes:
        refused: why there is no graph; ``None`` so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.refused: str | None = None
        self._root = Recording()
        self._graph = self._root.graph
        self._constants = 0
        # By identity; a reference that is dead tells that its number was given anew.
        self._nodes: dict[int, tuple[weakref.ref[Tensor], fx.Node]] = {}
        self._dependent: set[fx.Node] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Whether torch is to guard each operation against its compiler, whose import takes 2 s."""
        return False

    def input(self, x: Tensor, k: int) -> None:
        """Take a tensor for an input of the graph."""
        node = self._graph.placeholder(f"input_{k}")
        self._dependent.add(node)
        self._keep(x, node)

    def hold(self, function: OpaqueFunction) -> Opaque:
        """A function as the graph is to know it."""
        self._root.opaque.append(Opaque(function))
        return self._root.opaque[-1]

    def ended(self, values: Sequence[Tensor]) -> Recording:
        """The graph that gives these values."""
        self._graph.output(tuple(self._node(value) for value in values))
        return self._root

    def refuse(self, reason: str) -> NoGraphError:
        """The error for something that no graph can hold."""
        self.refused = reason
        return NoGraphError(reason)

    def depends(self, x: Tensor) -> bool:
        """Whether a tensor is known to depend on the inputs."""
        node = self._known(x)
        return node is not None and self._is_dependent(node)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is aten.lift_fresh.default:
            # Of a tensor written out in Python. It may be written to, and is made anew each time.
            func, args = aten.lift_fresh_copy.default, (args[0].clone(),)
        node_args = self._mapped(args)
        node_kwargs = {name: self._mapped(value) for name, value in kwargs.items()}
        node = self._graph.create_node("call_function", func, node_args, node_kwargs)
        dependent = any(self._is_dependent(x) for x in node.all_input_nodes)
        if draws(node):
            raise self.refuse(f"it draws random numbers ({func})")
        if reads_values(func, args):
            if dependent:
                raise self.refuse(f"its course depends on values ({func})")
            if Tag.data_dependent_output in func.tags:
                self._graph.erase_node(node)
                return func(*args, **kwargs)
        if writes(node):
            self._write(node, dependent)
        found = func(*args, **kwargs)
        if of_shape_alone(node):
            self._root.values[node] = found
        if dependent:
            self._dependent.add(node)
        self._keep_all(found, node, dependent)
        return found

    def _write(self, node: fx.Node, dependent: bool) -> None:
        roots = {storage(x) for x in node.all_input_nodes[:1]}
        if any(root.op == "get_attr" for root in roots):
            raise self.refuse(f"it writes into a tensor that it keeps ({node.target})")
        if dependent:
            self._dependent |= roots

    def _is_dependent(self, node: fx.Node) -> bool:
        return node in self._dependent or storage(node) in self._dependent

    def _known(self, x: Tensor) -> fx.Node | None:
        reference, node = self._nodes.get(id(x), (None, None))
        return node if reference is not None and reference() is x else None

    def _node(self, x: Tensor) -> fx.Node:
        node = self._known(x)
        if node is None:
            name = f"_constant_{self._constants}"
            self._constants += 1
            self._root.register_buffer(name, x.detach())
            node = self._graph.get_attr(name)
            self._keep(x, node)
        return node

    def _keep(self, x: Tensor, node: fx.Node) -> None:
        node.meta["dtype"] = x.dtype
        self._nodes[id(x)] = (weakref.ref(x), node)

    def _keep_all(self, found: Any, node: fx.Node, dependent: bool) -> None:
        if isinstance(found, Tensor):
            self._keep(found, node)
        elif isinstance(found, list | tuple):
            for k, value in enumerate(found):
                if isinstance(value, Tensor):
                    part = self._graph.call_function(operator.getitem, (node, k))
                    self._keep(value, part)
                    if dependent:
                        self._dependent.add(part)

    def _mapped(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._node(value)
        if isinstance(value, list | tuple):
            return type(value)(self._mapped(item) for item in value)
        return value


class _NoReading(TorchFunctionMode):
    """Refuses to hand numbers that depend on the inputs to what is not torch."""

    def __init__(self, record: _Record) -> None:
        super().__init__()
        self.record = record

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in READERS and self.record.depends(args[0]):
            raise self.record.refuse(f"its course depends on values ({func.__name__})")
        return func(*args, **(kwargs or {}))
