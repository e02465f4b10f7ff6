"""Every operation lowers for platforms that are not here, and what does not is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import manual
from handgrad.compare import lower
from handgrad.compare.cases import Case, normal
from handgrad.compare.cli import main
from handgrad.compare.mistake import Mistake

X = np.ones((3, 3))


@pytest.mark.sweep(4)
@pytest.mark.parametrize("case", lower.rows(), ids=lambda case: case.id)
def test_every_operation_lowers_forward_and_backward(case):
    found = lower.lower_case(case, lower.PLATFORMS)
    assert found.ok, found.reasons
    assert found.custom_calls == ()
    assert found.forward.platforms == lower.PLATFORMS
    assert found.forward.size > 0
    assert found.backward.size > 0


def called_back(x):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


@jax.custom_vjp
def called_back_backward(x):
    return jnp.sin(x)


called_back_backward.defvjp(
    lambda x: (jnp.sin(x), x), lambda x, dy: (dy * called_back(x + jnp.pi / 2),)
)


def test_what_one_platform_lacks_is_named_with_that_platform():
    found = lower.lower(jnp.linalg.eigvals, [X])
    failing = {platform for platform, _ in found.forward.failures}
    assert "tpu" in failing  # and of GPUs those whose libraries are not installed
    assert "cpu" not in failing
    assert "tpu forward" in found.reasons
    assert "eig" in found.reasons
    assert not found.ok


def test_a_backward_that_calls_back_into_this_process_is_named():
    """On every platform, and of the backward alone; it is a module that cannot be kept."""
    found = lower.lower(called_back_backward, [X])
    assert found.forward.ok
    assert [platform for platform, _ in found.backward.failures] == list(lower.PLATFORMS)
    assert "backward" in found.reasons
    assert "forward" not in found.reasons


def test_what_cannot_be_traced_is_the_reason_of_both_directions():
    found = lower.lower(lambda x: jnp.dot(x, jnp.ones(7)), [X], ("cpu",))
    assert not found.forward.ok
    assert not found.backward.ok
    assert "shape" in found.reasons


def test_custom_calls_are_those_of_the_module():
    assert lower.lower(jnp.linalg.qr, [X], ("cpu",)).custom_calls[0].startswith("lapack_")
    assert lower.lower(jnp.sin, [X]).custom_calls == ()


def test_the_first_case_of_each_operation_or_every_one():
    first, every = lower.rows("dense"), lower.rows("dense", every=True)
    assert len({case.function for case in first}) == len(first) < len(every)
    assert [case.id for case in every if case in first] == [case.id for case in first]


@pytest.mark.parametrize(
    ("text", "names"),
    [("tpu", ("tpu",)), (" cuda, tpu,cuda ", ("cuda", "tpu")), ("gpu, cuda", ("cuda", "rocm"))],
)
def test_platforms(text, names):
    assert lower.platforms_of(text) == names


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("metal", "metal cannot be lowered for; --platform takes any of tpu,cuda,rocm,cpu"),
        ("tpu,xpu,abc", "xpu, abc cannot"),
        (",", "no platform is named"),
    ],
)
def test_unknown_platforms_are_named(text, sentence):
    with pytest.raises(Mistake, match=sentence):
        lower.platforms_of(text)


def test_the_command(capsys):
    assert main(["lower", "-k", "activations.relu", "--platform", "cuda,tpu"]) == 0
    *rows, last = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["operation", "activations.relu"]
    assert "✓" in rows[1]
    assert last.startswith("✓ 1 operation, forward and backward, for cuda, tpu: all lower · 0 with")


def test_the_command_ends_with_1_where_a_planted_operation_cannot_be_lowered(capsys, monkeypatch):
    planted = Case("planted", normal(3, 3))
    planted.topic = "dense"
    relu = next(case for case in lower.rows("activations.relu"))
    monkeypatch.setattr(manual, "planted", called_back, raising=False)
    monkeypatch.setattr(lower, "load", lambda: [relu, planted])
    assert main(["lower"]) == 1
    _, right, wrong, last = capsys.readouterr().out.splitlines()
    assert "✓" in right
    assert "dense.planted" in wrong
    assert "✗ tpu forward" in wrong
    assert last.startswith("✗ 2 operations")
    assert "1 cannot be lowered" in last


def test_the_command_names_what_it_cannot_use(capsys):
    assert main(["lower", "--platform", "xpu"]) == 2
    assert main(["lower", "-k", "no such thing"]) == 2
    err = capsys.readouterr().err
    assert "handgrad: xpu cannot be lowered for" in err
    assert "no case has 'no such thing' in its name" in err
