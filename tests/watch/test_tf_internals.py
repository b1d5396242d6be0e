"""The private names of TensorFlow and Keras: each still does here what the package needs it for.

A test has the name of the function that it is about, so that a failure shows which private name changed.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import keras
import pytest
import tensorflow as tf

import tb_nanwatch

SOURCE = Path(tb_nanwatch.__file__).parent / "watch" / "tf_internals.py"
TREE = ast.parse(SOURCE.read_text(encoding="utf-8"))
IMPORTED = [
    (node.module, alias.name)
    for node in TREE.body
    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tensorflow.")
    for alias in node.names
]
FUNCTIONS = [node.name for node in TREE.body if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize(("module", "name"), IMPORTED)
def test_tensorflow_has_the_name_that_is_imported(module, name):
    found = importlib.import_module(module)
    assert hasattr(found, name) or importlib.import_module(f"{module}.{name}")


def test_each_function_has_a_test_of_its_name():
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert set(FUNCTIONS) <= tests


@pytest.fixture(scope="module")
def internals():
    return importlib.import_module("tb_nanwatch.watch.tf_internals")


@pytest.fixture
def graph():
    """The graph of a session."""
    with tf.Graph().as_default() as graph:
        yield graph


def traced(body):
    """Return what ``body`` returns while it is traced as a function."""
    found = []
    tf.function(lambda: found.append(body()), autograph=False).get_concrete_function()
    return found[0]


@pytest.fixture
def loop():
    """A loop of a session's graph: the tensor that enters it, a tensor inside it and its result."""
    is_on = tf.compat.v1.control_flow_v2_enabled()
    tf.compat.v1.disable_control_flow_v2()
    inside = []

    def body(value):
        inside.append(value + 1.0)
        return inside[0]

    try:
        with tf.Graph().as_default():
            start = tf.constant(0.0)
            result = tf.compat.v1.while_loop(lambda value: value < 3.0, body, [start])
            yield start, inside[0], result
    finally:
        if is_on:
            tf.compat.v1.enable_control_flow_v2()


def doubled_if_positive(x):
    if x > 0.0:
        return 2.0 * x
    return x


def is_converted(function):
    """Return whether a function takes a symbolic tensor as a condition, as only converted Python does."""

    @tf.function(autograph=False)
    def step(x):
        return function(x)

    try:
        return step(tf.constant(1.0)).numpy() == 2.0
    except tf.errors.OperatorNotAllowedInGraphError:
        return False


def test_converted(internals):
    assert is_converted(internals.converted(doubled_if_positive, is_converted=True))
    assert not is_converted(internals.converted(doubled_if_positive, is_converted=False))


@pytest.mark.parametrize("autograph", [True, False])
def test_autograph_status(internals, autograph):
    found = []

    @tf.function(autograph=autograph)
    def step():
        found.append(internals.autograph_status())

    step()
    assert is_converted(internals.converted_for(doubled_if_positive, found[0])) == autograph


test_converted_for = test_autograph_status


def test_converted_method(internals):
    # The code that runs here was not converted, and did not ask for a conversion.
    assert not is_converted(internals.converted_method(doubled_if_positive, internals.autograph_status()))


def test_converted_factories(internals):
    internals.converted(lambda x: x, is_converted=True)(1)
    assert all(hasattr(factories, "values") for factories in internals.converted_factories())
    assert internals.converted_factories()


@pytest.mark.parametrize("jit_compile", [True, False])
def test_is_in_xla(internals, jit_compile):
    found = []

    @tf.function(jit_compile=jit_compile)
    def step():
        found.append(internals.is_in_xla(tf.compat.v1.get_default_graph()))
        return tf.constant(0)

    step()
    assert found == [jit_compile]


def test_written_resources(internals):
    variable = tf.Variable(1.0)

    def body():
        variable.assign_add(1.0)
        variable.read_value()
        graph = tf.compat.v1.get_default_graph()
        kinds = {op.type: op for op in graph.get_operations()}
        return [len(internals.written_resources(kinds[kind])) for kind in ("AssignAddVariableOp", "ReadVariableOp")]

    assert traced(body) == [1, 0]


def test_add_control_input(internals, graph):
    first, second = tf.no_op(), tf.no_op()
    internals.add_control_input(second, first)
    assert list(second.control_inputs) == [first]


def test_run_independently(internals):
    variable = tf.Variable(1.0)

    @tf.function
    def step():
        variable.assign_add(1.0)
        read = tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=tf.float32)
        internals.run_independently(read.op)
        found.append(read.op)
        return read

    found = []
    step.get_concrete_function()
    assert list(found[0].control_inputs) == []


def test_run_independently_does_nothing_in_a_sessions_graph(internals, graph):
    internals.run_independently(tf.no_op())


def test_variable_creators(internals, graph):
    def creator(following, **given):
        return following(**given)

    with tf.variable_creator_scope(creator):
        assert [found.__name__ for found in internals.variable_creators(graph)] == ["creator"]


def test_is_in_loop(internals, loop):
    start, inside, result = loop
    assert [internals.is_in_loop(tensor.op) for tensor in (start, inside, result)] == [False, True, False]


def test_has_output_context(internals, loop):
    start, inside, result = loop
    assert [internals.has_output_context(tensor.op) for tensor in (start, inside, result)] == [False, True, False]


def test_has_context(internals, loop):
    start, inside, _ = loop
    assert [internals.has_context(one) for one in (start.op, inside.op, start.graph)] == [False, True, False]


def test_entered_values(internals, loop):
    start, inside, _ = loop
    assert start.name in {tensor.name for tensor in internals.entered_values(inside.op)}


def test_open_control_inputs(internals, graph):
    first = tf.no_op()
    with tf.control_dependencies([first]):
        assert internals.open_control_inputs(graph) == [first]
    assert internals.open_control_inputs(graph) == []


def test_inner_graphs(internals):
    def body():
        x = tf.constant(1.0)
        tf.cond(x > 0.0, lambda: x + 1.0, lambda: x)
        tf.while_loop(lambda x: x < 3.0, lambda x: x + 1.0, [x])
        tf.switch_case(tf.cast(x, tf.int32), [lambda: x, lambda: x + 1.0, lambda: x])
        tf.function(lambda x: x + 1.0)(x)
        operations = tf.compat.v1.get_default_graph().get_operations()
        return {op.type: len(internals.inner_graphs(op)) for op in operations}

    found = traced(body)
    calls = {kind.removeprefix("Stateful").removeprefix("Stateless"): count for kind, count in found.items()}
    assert {kind: calls[kind] for kind in ("If", "While", "Case", "PartitionedCall", "Const")} == {
        "If": 2,
        "While": 2,
        "Case": 3,
        "PartitionedCall": 1,
        "Const": 0,
    }


def test_body_graph(internals):
    def body():
        tf.while_loop(lambda x: x < 3.0, tf.exp, [tf.constant(1.0)])
        operations = tf.compat.v1.get_default_graph().get_operations()
        (loop,) = [op for op in operations if op.type in ("While", "StatelessWhile")]
        return {op.type for op in internals.body_graph(loop).get_operations()}

    assert "Exp" in traced(body)


def test_forward_operation(internals, graph):
    x = tf.constant(2.0)
    y = tf.exp(x)
    gradient = tf.gradients(y, x)[0]
    assert (internals.forward_operation(gradient.op), internals.forward_operation(y.op)) == (y.op, None)


def test_copy_operation(internals, graph):
    product = tf.linalg.matmul(tf.ones([2, 3]), tf.ones([2, 3]), transpose_a=True)
    copy = internals.copy_operation(product.op, graph, list(product.op.inputs))
    assert (copy.type, copy.get_attr("transpose_a")) == ("MatMul", True)
    assert copy is not product.op


def test_unfinalize(internals, graph):
    graph.finalize()
    internals.unfinalize(graph)
    assert not graph.finalized
    tf.no_op()


def test_session_inside(internals, graph):
    tf.no_op()
    with tf.compat.v1.train.MonitoredSession() as session:
        assert isinstance(internals.session_inside(session), tf.compat.v1.Session)
    with tf.compat.v1.Session() as session:
        assert internals.session_inside(session) is session


def test_primary_of(internals):
    variable = tf.Variable(1.0)
    assert internals.primary_of(variable) is variable
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        mirrored = tf.Variable(1.0)
    assert internals.primary_of(mirrored) is mirrored.values[0]


def test_reference_of(internals, graph):
    variable = tf.compat.v1.get_variable("w", [], use_resource=False)
    assert internals.reference_of(variable).op.type == "VariableV2"


def test_handle_dtypes(internals):
    iterator = iter(tf.data.Dataset.range(3))
    assert internals.handle_dtypes(tf.Variable(1.0).handle) == [tf.float32.as_datatype_enum]
    assert len(internals.handle_dtypes(iterator._iterator_resource)) != 1


def test_is_reference(internals, graph):
    variable = tf.compat.v1.get_variable("w", [], use_resource=False)
    assert internals.is_reference(internals.reference_of(variable))
    assert not internals.is_reference(tf.constant(1.0))


def test_takes_reference(internals, graph):
    variable = tf.compat.v1.get_variable("w", [], use_resource=False)
    assert internals.takes_reference(variable.assign(1.0).op)
    assert not internals.takes_reference(variable.read_value().op)


def test_loss_scale_object(internals):
    descent = tf.compat.v1.train.GradientDescentOptimizer(0.1)
    scaled = tf.compat.v1.mixed_precision.MixedPrecisionLossScaleOptimizer(
        descent, tf.compat.v1.mixed_precision.DynamicLossScale()
    )
    assert isinstance(internals.loss_scale_object(scaled), tf.compat.v1.mixed_precision.DynamicLossScale)
    assert internals.loss_scale_object(descent) is None


def test_keep_as_one_operation(internals):
    def body():
        result = tf.cond(tf.constant(1.0) > 0.0, lambda: tf.constant(1.0), lambda: tf.constant(2.0))
        op = result.op
        while op.type not in ("If", "StatelessIf"):
            op = op.inputs[0].op
        internals.keep_as_one_operation(op)
        return op.get_attr("_lower_using_switch_merge")

    assert traced(body) is False


def test_set_input(internals, graph):
    total = tf.raw_ops.AddV2(x=tf.constant(1.0), y=tf.constant(2.0))
    three = tf.constant(3.0)
    internals.set_input(total.op, 0, three)
    assert total.op.inputs[0] is three


def test_set_string(internals, graph):
    op = tf.no_op()
    internals.set_string(op, "_note", b"text")
    assert op.get_attr("_note") == b"text"


def test_set_integer(internals, graph):
    op = tf.no_op()
    internals.set_integer(op, "_number", 3)
    assert op.get_attr("_number") == 3


def test_functional_conditional(internals, graph):
    (result,) = internals.functional_conditional(
        tf.constant(True), lambda: (tf.constant(1.0),), lambda: (tf.constant(2.0),), name="choice"
    )
    with tf.compat.v1.Session() as session:
        assert session.run(result) == 1.0
    assert {"If", "StatelessIf"} & {op.type for op in graph.get_operations()}


def test_is_operation_type(internals):
    assert [internals.is_operation_type(name) for name in ("MatMul", "NoSuchThing")] == [True, False]


def test_array_of_proto(internals):
    blob = tf.io.serialize_tensor(tf.constant([1.0, 2.0])).numpy()
    assert internals.array_of_proto(blob).tolist() == [1.0, 2.0]


def test_trace_into(internals):
    graph = internals.FuncGraph("graph")
    internals.trace_into(graph, lambda x: x + 1.0, [tf.constant(1.0)], name="graph")
    assert [tensor.dtype for tensor in graph.outputs] == [tf.float32]


def test_callable_function(internals):
    graph = internals.FuncGraph("graph")
    internals.trace_into(graph, lambda x: x + 1.0, [tf.constant(1.0)], name="graph")
    (result,) = internals.callable_function(graph, name="added").call_flat(tf.constant(2.0))
    assert result.numpy() == 3.0


def test_lift(internals):
    graph = internals.FuncGraph("graph")
    internals.trace_into(graph, lambda x: tf.exp(x) + 1.0, [tf.constant(1.0)], name="graph")
    cut = internals.FuncGraph("cut")
    exponential = next(op.outputs[0] for op in graph.get_operations() if op.type == "Exp")
    with cut.as_default():
        copies = internals.lift(
            [exponential],
            cut,
            sources=list(graph.inputs),
            base_graph=graph,
            add_sources=True,
            handle_captures=False,
        )
    assert copies[exponential].graph is cut
    assert {op.type for op in cut.get_operations()} == {"Placeholder", "Exp"}


def test_polymorphic_function_type(internals):
    assert isinstance(tf.function(lambda: None), internals.polymorphic_function_type())


def test_uses_autograph(internals):
    assert [internals.uses_autograph(tf.function(len, autograph=on)) for on in (True, False)] == [True, False]


def test_with_python_function(internals):
    function = tf.function(lambda x: x, autograph=False)
    copy = internals.with_python_function(function, lambda x: x + 1.0)
    assert (copy(tf.constant(1.0)).numpy(), internals.uses_autograph(copy)) == (2.0, False)


def test_add_operation_callback(internals):
    seen = []

    def callback(op_type, *_, **__):
        seen.append(op_type)

    internals.add_operation_callback(callback)
    assert internals.operation_callbacks() == [callback]
    tf.exp(1.0)
    internals.remove_operation_callback(callback)
    tf.sin(1.0)
    assert "Exp" in [getattr(name, "decode", lambda name=name: name)() for name in seen]
    assert "Sin" not in [getattr(name, "decode", lambda name=name: name)() for name in seen]
    assert internals.operation_callbacks() == []


test_operation_callbacks = test_remove_operation_callback = test_add_operation_callback


def test_stop_recording(internals):
    x = tf.Variable(1.0)
    with tf.GradientTape() as tape, internals.stop_recording():
        y = x * 2.0
    assert tape.gradient(y, x) is None


def test_is_dumping(internals, tmp_path):
    found = [internals.is_dumping()]
    tf.debugging.experimental.enable_dump_debug_info(str(tmp_path))
    found.append(internals.is_dumping())
    tf.debugging.experimental.disable_dump_debug_info()
    assert [*found, internals.is_dumping()] == [False, True, False]


@pytest.fixture(scope="module")
def strategy():
    return tf.distribute.MirroredStrategy(["CPU:0"])


def test_has_merge_call(internals, strategy):
    assert isinstance(internals.has_merge_call(strategy), bool)


def test_first_replica_number(internals, strategy):
    assert internals.first_replica_number(strategy) == 0


def test_replica_context_of(internals, strategy):
    context = internals.replica_context_of(strategy, replica=0)
    assert context.replica_id_in_sync_group == 0
    with context:
        assert internals.current_replica() == 0


def test_current_replica(internals):
    assert internals.current_replica() is None or internals.current_replica() == 0


def test_regrouped(internals, strategy):
    values = internals.regrouped([tf.constant(1.0), tf.constant(2.0)])
    assert [value.numpy() for value in values.values] == [1.0, 2.0]


def test_share_of_replica(internals, strategy):
    values = internals.regrouped([tf.constant(1.0), tf.constant(2.0)])
    assert internals.share_of_replica(1, {"x": values})["x"].numpy() == 2.0


@pytest.fixture
def model():
    inner = keras.Sequential([keras.layers.Dense(2, name="inner")], name="block")
    model = keras.Sequential([keras.Input((3,)), inner, keras.layers.Dense(1, name="head")])
    model.compile(keras.optimizers.SGD(0.5, clipvalue=1.0), "mse", jit_compile=False)
    return model


def test_layers_inside(internals, model):
    names = [layer.name for layer in internals.layers_inside(model)]
    assert {"block", "inner", "head"} <= set(names)
    assert "inner" not in [layer.name for layer in internals.layers_inside(model, recursive=False)]


def test_trainable_variables_of(internals, model):
    model.optimizer.build(model.trainable_variables)
    found = internals.trainable_variables_of(model.optimizer)
    assert [variable.path for variable in found] == [variable.path for variable in model.trainable_variables]


def test_iterations_of(internals, model):
    model.fit(tf.ones([2, 3]), tf.ones([2, 1]), verbose=0)
    assert int(internals.iterations_of(model.optimizer).value) == 1


def test_clipped_by(internals, model):
    assert [float(gradient) for gradient in internals.clipped_by(model.optimizer, [tf.constant(3.0)])] == [1.0]


def test_clipping_off(internals):
    variable, optimizer = keras.Variable(0.0), keras.optimizers.SGD(1.0, clipvalue=1.0)
    with internals.clipping_off(optimizer):
        optimizer.apply([tf.constant(3.0)], [variable])
    assert float(variable.numpy()) == -3.0
    optimizer.apply([tf.constant(3.0)], [variable])
    assert float(variable.numpy()) == -4.0


def test_converter_of_optionals(internals, model):
    calls, convert = [], internals.converter_of_optionals(model)

    def noting(step):
        calls.append(step)
        return convert(step)

    model._autoconvert_optionals = noting
    model.fit(tf.ones([2, 3]), tf.ones([2, 1]), verbose=0)
    assert calls
