"""A graph written out for TorchScript's interpreter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from nfvi.tracing.nodes import schema_of
from nfvi.tracing.record import Recording

__all__ = ["scripted"]

aten = torch.ops.aten
jit: Any = torch._C
WITH_NUMBERS = {
    aten.mul.Scalar: aten.mul.Tensor,
    aten.mul.Tensor: aten.mul.Tensor,
    aten.div.Tensor: aten.div.Tensor,
    aten.add.Tensor: aten.add.Tensor,
    aten.sub.Tensor: aten.sub.Tensor,
}
"""Operations that make a tensor of a number anew each time, and those that take the tensor."""
FORMATS = {
    torch.contiguous_format: 0,
    torch.preserve_format: 1,
    torch.channels_last: 2,
    torch.channels_last_3d: 3,
}
"""TorchScript has whole numbers in their place."""


def scripted(module: Recording) -> Callable[..., tuple[Tensor, ...]]:
    """A function that runs the graph without Python.

    ``torch.jit.trace`` makes the same of it and takes ten times as long: 2 s for 7 000 operations.
    What is called here is no public part of torch, so that any exception may come.
    """
    writer = _Writer(module)
    for node in module.graph.nodes:
        writer.write(node)
    return torch._C._create_function_from_graph("run", writer.graph)


class _Writer:
    """Takes over node by node.

    Attributes:
        graph: of TorchScript, so far.
    """

    def __init__(self, module: Recording) -> None:
        self.graph: Any = jit.Graph()
        self._module = module
        # A list for operations that return several tensors.
        self._values: dict[fx.Node, Any] = {}

    def write(self, node: fx.Node) -> None:
        """Add one node."""
        if node.op == "placeholder":
            self._values[node] = self.graph.addInput(node.name)
        elif node.op == "get_attr":
            constant = getattr(self._module, str(node.target))
            self._values[node] = self.graph.insertConstant(constant)
        elif node.op == "output":
            self.graph.registerOutput(self._tuple(node.args[0]))
        elif isinstance(node.target, OpOverload):
            self._values[node] = self._call(*_numbers_as_tensors(node))
        else:
            self._values[node] = self._item(*node.args)

    def _call(self, op: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        schema = schema_of(op)
        names = [argument.name for argument in schema.arguments]
        given = dict(zip(names, args, strict=False)) | kwargs
        inputs = [self._value(given.get(a.name, a.default_value), a.type) for a in schema.arguments]
        outputs = self._insert(schema.name, inputs, [value.type for value in schema.returns])
        return outputs[0] if len(outputs) == 1 else outputs

    def _item(self, source: Any, k: Any) -> Any:
        several = self._values[source]
        if isinstance(several, list):
            return several[k]
        inputs = [several, self.graph.insertConstant(k)]
        return self._insert("aten::__getitem__", inputs, [jit.TensorType.get()])[0]

    def _tuple(self, nodes: Any) -> Any:
        values = [self._values[node] for node in nodes]
        kind = jit.TupleType([value.type() for value in values])
        return self._insert("prim::TupleConstruct", values, [kind])[0]

    def _insert(self, name: str, inputs: Sequence[Any], types: Sequence[Any]) -> list[Any]:
        node = self.graph.insertNode(self.graph.create(name, list(inputs), len(types)))
        outputs = list(node.outputs())
        for output, kind in zip(outputs, types, strict=True):
            output.setType(kind)
        return outputs

    def _value(self, value: Any, kind: Any) -> Any:
        if isinstance(value, fx.Node):
            return self._values[value]
        if isinstance(kind, jit.OptionalType) and value is not None:
            kind = kind.getElementType()
        if isinstance(value, list | tuple):
            part = kind.getElementType()
            items = [self._value(item, part) for item in value]
            return self._insert("prim::ListConstruct", items, [jit.ListType(part)])[0]
        if isinstance(value, torch.memory_format):
            value = FORMATS[value]
        if isinstance(kind, jit.FloatType) and value is not None:
            value = float(value)
        return self.graph.insertConstant(value)


def _numbers_as_tensors(node: fx.Node) -> tuple[OpOverload, Sequence[Any], dict[str, Any]]:
    """The operation of a node and its arguments, with a tensor for a number of its own dtype."""
    op: Any = node.target
    args: Any = node.args
    if op in WITH_NUMBERS and len(args) == 2 and type(args[1]) in (int, float):
        dtype = node.meta["dtype"]
        if dtype.is_floating_point and args[0].meta["dtype"] == dtype:
            op, args = WITH_NUMBERS[op], (args[0], torch.tensor(float(args[1]), dtype=dtype))
    return op, args, dict(node.kwargs)
