"""Every import and attribute of TensorFlow and Keras that their public interface does not promise.

A new version may move any of them. So they are used in this module alone, each by a function with a smoke test of its
name in ``tests/watch/test_tf_internals.py``. Names that other modules search for in a stack or a closure stand beside
the search, as strings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2, tensor_pb2
from tensorflow.python.autograph.core import ag_ctx
from tensorflow.python.autograph.impl import api as autograph
from tensorflow.python.debug.lib import dumping_callback
from tensorflow.python.distribute import distribute_lib, distribute_utils, values_util
from tensorflow.python.eager import context, lift_to_graph, record
from tensorflow.python.eager.polymorphic_function import atomic_function, polymorphic_function
from tensorflow.python.framework import op_callbacks, op_def_registry
from tensorflow.python.framework.auto_control_deps_utils import get_read_write_resource_inputs
from tensorflow.python.framework.func_graph import FuncGraph, func_graph_from_py_func
from tensorflow.python.framework.ops import EagerTensor
from tensorflow.python.ops import cond_v2, control_flow_util
from tensorflow.python.ops.control_flow_v2_func_graphs import CondBranchFuncGraph, WhileBodyFuncGraph
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

__all__ = ["CondBranchFuncGraph", "EagerTensor", "FuncGraph", "ResourceVariable", "WhileBodyFuncGraph"]

_FUNCTION_CALLS: Final = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_CASES: Final = frozenset({"Case", "StatelessCase"})
_BRANCHES: Final = ["_true_graph", "_false_graph"]
_LOOP: Final = ["_cond_graph", "_body_graph"]
_GRAPHS_OF: Final = {"If": _BRANCHES, "StatelessIf": _BRANCHES, "While": _LOOP, "StatelessWhile": _LOOP}

# AutoGraph


def converted(function: Callable[..., Any], *, is_converted: bool) -> Callable[..., Any]:
    """Return a Python function as ``tf.function`` traces it, with its control flow converted if ``is_converted``."""
    return converted_for(function, ag_ctx.ControlStatusCtx(ag_ctx.Status.ENABLED)) if is_converted else function


def converted_for(function: Callable[..., Any], status: Any) -> Callable[..., Any]:
    """Return a function converted as the status of :func:`autograph_status` asks."""
    result: Callable[..., Any] = autograph.tf_convert(function, status)
    return result


def converted_method(function: Callable[..., Any], status: Any) -> Callable[..., Any]:
    """Return a function converted as the status asks; a function that AutoGraph was not asked to convert stays."""
    result: Callable[..., Any] = autograph.tf_convert(function, status, convert_by_default=False)
    return result


def autograph_status() -> Any:
    """Return whether AutoGraph converts the code that runs now."""
    return ag_ctx.control_status_ctx()


def converted_factories() -> list[Any]:
    """Return AutoGraph's cache of converted functions, one mapping for each source function."""
    return list(autograph._TRANSPILER._cache._cache.values())


# Graphs and operations


def is_in_xla(graph: Any) -> bool:
    """Return whether XLA compiles a graph or one that encloses it."""
    return bool(control_flow_util.GraphOrParentsInXlaContext(graph))


def written_resources(op: Any) -> Sequence[Any]:
    """Return the resource inputs that an operation writes."""
    written: Sequence[Any] = get_read_write_resource_inputs(op)[1]
    return written


def add_control_input(op: Any, awaited: Any) -> None:
    """Make an operation that is already in its graph wait for another."""
    op._add_control_input(awaited)


def run_independently(op: Any) -> None:
    """Stop a function's automatic control dependencies from ordering an operation after earlier writes."""
    manager = getattr(op.graph, "experimental_acd_manager", None)
    if manager is not None:
        manager.run_independently(op)


def variable_creators(graph: Any) -> list[Callable[..., Any]]:
    """Return the functions that create variables in a graph, outermost scope first."""
    return [creator for _, creator in graph._variable_creator_stack]


def is_in_loop(op: Any) -> bool:
    """Return whether an operation of a session's graph is in a loop, where it cannot wait for anything outside."""
    return control_flow_util.GetContainingWhileContext(control_flow_util.GetOutputContext(op)) is not None


def has_output_context(op: Any) -> bool:
    """Return whether the outputs of an operation of a session's graph are in a branch or loop."""
    return control_flow_util.GetOutputContext(op) is not None


def has_context(op_or_graph: Any) -> bool:
    """Return whether an operation was created in a branch or loop of a session's graph, or whether one is open now."""
    return op_or_graph._get_control_flow_context() is not None


def entered_values(op: Any) -> list[Any]:
    """Return the tensors by which values enter the loop of a session's graph that an operation belongs to."""
    context = op._get_control_flow_context()
    return [enter.op.inputs[0] for enter in getattr(context, "loop_enters", ())]


def open_control_inputs(graph: Any) -> list[Any]:
    """Return the operations that whatever is created in a graph now waits for."""
    return list(graph._current_control_dependencies())


def inner_graphs(op: Any) -> list[Any]:
    """Return the graphs that an operation runs: its branches, its loop or its function. Unknown graphs are left out."""
    if op.type in _FUNCTION_CALLS:
        function = op.graph._get_function(op.get_attr("f").name)
        graph = getattr(function, "graph", None)
        return [] if graph is None else [graph]
    if op.type in _CASES:
        names = [f"_branch_graph_{number}" for number in range(len(op.get_attr("branches")))]
    else:
        names = _GRAPHS_OF.get(op.type, [])
    return [graph for name in names if (graph := getattr(op, name, None)) is not None]


def body_graph(op: Any) -> Any:
    """Return the graph of the body of a functional loop."""
    return op._body_graph


def forward_operation(op: Any) -> Any:
    """Return the operation of the forward pass whose gradient an operation computes; ``None`` if there is none."""
    return op._original_op


def copy_operation(op: Any, graph: Any, inputs: Sequence[Any]) -> Any:
    """Create an operation of the same kind and with the same public attributes in a graph."""
    attributes = {name: value for name, value in op.node_def.attr.items() if name[0] != "_"}
    dtypes = [output.dtype for output in op.outputs]
    return graph._create_op_internal(op.type, inputs, dtypes, attrs=attributes, op_def=op.op_def)


def unfinalize(graph: Any) -> None:
    """Allow new operations in a graph that was finalized."""
    graph._unsafe_unfinalize()


def session_inside(session: Any) -> Any:
    """Return the session of TensorFlow that a monitored session wraps; any other session unchanged."""
    return session._tf_sess() if hasattr(session, "_tf_sess") else session


# Variables


def primary_of(variable: Any) -> Any:
    """Return the first replica's variable of a variable of many replicas; any other variable unchanged."""
    return getattr(variable, "_primary", variable)


def reference_of(variable: Any) -> Any:
    """Return the reference of a reference variable of TensorFlow 1."""
    return variable._ref()


def handle_dtypes(handle: Any) -> list[Any]:
    """Return the dtypes of the values behind a resource: one for a variable, none or several for other resources."""
    data = getattr(handle, "_handle_data", None)
    return [] if data is None else [value.dtype for value in data.shape_and_type]


def is_reference(tensor: Any) -> bool:
    """Return whether a tensor refers to the memory of a reference variable of TensorFlow 1."""
    return bool(tensor.dtype._is_ref_dtype)


def takes_reference(op: Any) -> bool:
    """Return whether an operation takes one of its inputs as a reference, and not as a value."""
    return any(argument.is_ref for argument in op.op_def.input_arg)


def loss_scale_object(optimizer: Any) -> Any:
    """Return the loss scale object of an optimizer of TensorFlow 1; ``None`` if it has none."""
    return getattr(optimizer, "_loss_scale", None)


# Operations that are already in their graph


def keep_as_one_operation(op: Any) -> None:
    """Stop TensorFlow from lowering a conditional into one switch for each tensor that its branches read."""
    op._set_attr("_lower_using_switch_merge", attr_value_pb2.AttrValue(b=False))


def set_input(op: Any, place: int, tensor: Any) -> None:
    """Replace an input of an operation."""
    op._update_input(place, tensor)


def set_string(op: Any, attribute: str, value: bytes) -> None:
    """Set a string attribute of an operation that is already in its graph."""
    op._set_attr(attribute, attr_value_pb2.AttrValue(s=value))


def set_integer(op: Any, attribute: str, value: int) -> None:
    """Set an integer attribute of an operation that is already in its graph."""
    op._set_attr(attribute, attr_value_pb2.AttrValue(i=value))


def functional_conditional(
    condition: Any, usual: Callable[[], Any], rare: Callable[[], Any], *, name: str
) -> Sequence[tf.Tensor]:
    """Return the outputs of a functional conditional, in a session's graph too."""
    outputs: Sequence[tf.Tensor] = cond_v2.cond_v2(condition, usual, rare, name=name)
    return outputs


def is_operation_type(name: str) -> bool:
    """Return whether TensorFlow has a kind of operation of this name."""
    return op_def_registry.get(name) is not None


def array_of_proto(blob: bytes) -> Any:
    """Decode a serialised ``TensorProto`` into an array."""
    return tf.make_ndarray(tensor_pb2.TensorProto.FromString(blob))


def lift(tensors: Sequence[Any], graph: Any, **options: Any) -> Mapping[Any, Any]:
    """Copy tensors and all that they depend on into a graph; see TensorFlow's ``lift_to_graph``."""
    copies: Mapping[Any, Any] = lift_to_graph.lift_to_graph(tensors, graph, **options)
    return copies


def trace_into(graph: Any, function: Callable[..., Any], arguments: Sequence[Any], *, name: str) -> None:
    """Trace a function into a given ``FuncGraph``."""
    func_graph_from_py_func(name, function, tuple(arguments), {}, func_graph=graph)


def callable_function(graph: Any, *, name: str) -> Any:
    """Return a callable function made of a ``FuncGraph``."""
    return atomic_function.from_func_graph(name, graph, {})


def polymorphic_function_type() -> Any:
    """Return the class of what ``tf.function`` returns."""
    return polymorphic_function.Function


def uses_autograph(function: Any) -> bool:
    """Return whether a ``tf.function`` converts the control flow of its Python function."""
    return bool(function._autograph)


def with_python_function(function: Any, python_function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a ``tf.function`` with the options of another and a new Python function."""
    copied: Callable[..., Any] = function._clone(python_function)
    return copied


# Callbacks and tapes


def operation_callbacks() -> list[Any]:
    """Return the operation callbacks of this thread."""
    return list(context.context().op_callbacks)


def add_operation_callback(callback: Any) -> None:
    """Call ``callback`` after each operation that is created or run in this thread."""
    op_callbacks.add_op_callback(callback)


def remove_operation_callback(callback: Any) -> None:
    """Stop the calls that :func:`add_operation_callback` began."""
    op_callbacks.remove_op_callback(callback)


def stop_recording() -> AbstractContextManager[None]:
    """Return a context in which no gradient tape records."""
    stopped: AbstractContextManager[None] = record.stop_recording()
    return stopped


def is_dumping() -> bool:
    """Return whether TensorFlow's debugger dumps in this thread."""
    return hasattr(dumping_callback._state, "dumping_callback")


# Distribution


def has_merge_call(strategy: Any) -> bool:
    """Return whether the replicas of a strategy meet in a merge call of one graph."""
    return bool(strategy.extended._use_merge_call())


def first_replica_number(strategy: Any) -> int:
    """Return the number, over all processes, of the first replica of this process."""
    number_of = getattr(strategy.extended, "_get_replica_id_in_sync_group", int)
    return int(number_of(0))


def replica_context_of(strategy: Any, *, replica: int) -> Any:
    """Return the context of one replica of a strategy."""
    return distribute_lib.ReplicaContext(strategy, replica_id_in_sync_group=replica)


def regrouped(values: Sequence[Any]) -> Any:
    """Return one per-replica value for the values of all replicas."""
    return distribute_utils.regroup(tuple(values), always_wrap=True)


def share_of_replica(place: int, structure: Any) -> Any:
    """Return what one replica sees of a structure of per-replica values."""
    return distribute_utils.select_replica(place, structure)


def current_replica() -> int | None:
    """Return the number of the replica that runs this code; ``None`` outside any."""
    number: int | None = values_util.get_current_replica_id_as_int()
    return number


# Keras


def layers_inside(layer: Any, *, recursive: bool = True) -> list[Any]:
    """Return the layers that a Keras layer or model consists of.

    Args:
        layer: layer or model.
        recursive: whether the layers of its layers count too.
    """
    return list(layer._flatten_layers(include_self=False, recursive=recursive))


def trainable_variables_of(optimizer: Any) -> list[Any]:
    """Return the variables that a Keras optimizer was built for."""
    return list(optimizer._trainable_variables)


def iterations_of(optimizer: Any) -> Any:
    """Return the variable in which a Keras optimizer counts its own updates."""
    return optimizer._iterations


def clipped_by(optimizer: Any, gradients: Sequence[Any]) -> list[Any]:
    """Return gradients as a Keras optimizer clips them."""
    return list(optimizer._clip_gradients(gradients))


@contextmanager
def clipping_off(optimizer: Any) -> Iterator[None]:
    """Stop a Keras optimizer from clipping until the context ends."""
    optimizer._clip_gradients = lambda gradients: gradients
    try:
        yield
    finally:
        # If several replicas share the optimizer, the first that ends removes it. All have clipped by then.
        vars(optimizer).pop("_clip_gradients", None)


def converter_of_optionals(model: Any) -> Callable[[Any], Callable[..., Any]]:
    """Return the method by which ``fit`` makes a step accept batches of ``None``."""
    converter: Callable[[Any], Callable[..., Any]] = model._autoconvert_optionals
    return converter
