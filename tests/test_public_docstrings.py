"""``help()`` of a public name reads like a manual: every parameter, the result, an example."""

from __future__ import annotations

import inspect

import pytest

import tb_nanwatch

METHODS = ("step", "replay_step", "apply_gradients", "accumulate", "tensor", "session_run", "after_step")
CALLABLES = {
    "Watch": tb_nanwatch.Watch.__init__,
    "NanWatchCallback": tb_nanwatch.NanWatchCallback.__init__,
    "NanWatchHook": tb_nanwatch.NanWatchHook.__init__,
    "load_batch": tb_nanwatch.load_batch,
    **{f"Watch.{name}": getattr(tb_nanwatch.Watch, name) for name in METHODS},
}


def section(text, name):
    """The lines of a section of a docstring, or nothing."""
    _, _, rest = text.partition(f"\n{name}:\n")
    return rest.partition("\n\n")[0]


@pytest.mark.parametrize("name", CALLABLES)
def test_every_parameter_is_described(name):
    described = section(inspect.getdoc(CALLABLES[name]), "Args")
    parameters = [p for p in inspect.signature(CALLABLES[name]).parameters.values() if p.name != "self"]
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    named = [f"{stars.get(parameter.kind, '')}{parameter.name}" for parameter in parameters]
    assert [name for name in named if f"    {name}: " not in described] == []


@pytest.mark.parametrize("name", CALLABLES)
def test_every_result_is_described(name):
    has_result = inspect.signature(CALLABLES[name]).return_annotation not in {"None", None}
    assert bool(section(inspect.getdoc(CALLABLES[name]), "Returns")) == has_result


@pytest.mark.parametrize(
    "name",
    ["Watch", "NanWatchCallback", "NanWatchHook", "NonFiniteError", "load_batch", *(f"Watch.{m}" for m in METHODS)],
)
def test_every_public_name_has_an_example(name):
    owner, _, method = name.partition(".")
    value = getattr(tb_nanwatch, owner)
    assert section(inspect.getdoc(getattr(value, method) if method else value), "Example")
