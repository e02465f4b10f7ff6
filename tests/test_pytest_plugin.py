"""The plugin in pytest sessions of its own: reports instead of internals, fixtures, the count."""

import os
import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

CHECKS = """
import jax, jax.numpy as jnp, numpy as np
from handgrad.compare import check, check_backward, check_gradient

x = np.array([0.3, -1.2, 0.8])

def loss(x):
    return jnp.sum(x**2)

def test_right():
    check_gradient(lambda x: 2 * x, loss, x)
    check(jnp.tanh, jnp.tanh, x)

def test_wrong():
    def softmax_backward(x, dy):
        p = jax.nn.softmax(x)
        return (p * dy,)

    check_backward(softmax_backward, jax.nn.softmax, x)

def test_none():
    check_backward(lambda x, dy: (None,), jax.nn.softmax, x)

def helper(x):
    return jnp.dot(x, jnp.ones((7, 2)))

def test_raises():
    def gradient(x):
        return helper(x)

    check_gradient(gradient, loss, x)

def test_has_a_cause():
    def gradient(x):
        try:
            {}["missing"]
        except KeyError as error:
            raise ValueError("no such parameter") from error

    check_gradient(gradient, loss, x)

def test_without_a_check():
    assert x.shape == (4,)

def test_fixtures(handgrad_check, handgrad_check_backward, handgrad_check_gradient):
    reports = [
        handgrad_check(jnp.tanh, jnp.tanh, x),
        handgrad_check_backward(lambda x, dy: (2 * dy,), lambda x: 2 * x, x),
        handgrad_check_gradient(lambda x: 2 * x, loss, x),
    ]
    assert [r.seed for r in reports] == [7, 7, 7]
    assert [r.kind for r in reports] == ["function", "backward", "gradient"]
    assert handgrad_check(jnp.tanh, jnp.tanh, x, seed=3).seed == 3
"""


@pytest.fixture(scope="module", params=[(), ("-n2",)], ids=["alone", "xdist"])
def session(request, tmp_path_factory):
    """What pytest prints of these tests, run by itself or by workers."""
    folder = tmp_path_factory.mktemp("session")
    (folder / "test_it.py").write_text(CHECKS)
    (folder / "pytest.ini").write_text("[pytest]\n")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "--handgrad-seed=7", *request.param],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "COLUMNS": "150"},
    )  # fmt: skip
    assert "5 failed, 2 passed" in result.stdout, result.stdout
    return result.stdout


def section(session, name):
    """The lines under the title of one failed test."""
    lines = session.splitlines()
    start = next(i for i, line in enumerate(lines) if line.strip("_ ") == name)
    end = next(i for i in range(start + 1, len(lines)) if lines[i].startswith(("____", "====")))
    return "\n".join(lines[start + 1 : end])


def test_a_failed_check_reads_like_its_report(session):
    text = section(session, "test_wrong")
    assert ">       check_backward(softmax_backward, jax.nn.softmax, x)\n" in text
    assert "\nE   ✗ softmax_backward: the gradient is wrong for x\n" in text
    assert "\nE       by hand " in text
    assert "\nE       autodiff " in text
    assert "GradientMismatch:" not in text
    assert "compare/" not in text
    assert "\nE     the cotangent of 'x' is None" in section(session, "test_none")


def test_the_short_summary_says_what_matters(session):
    lines = [line for line in session.splitlines() if line.startswith("FAILED")]
    said = dict(line.removeprefix("FAILED test_it.py::").split(" - ", 1) for line in lines)
    assert said["test_wrong"] == "✗ softmax_backward: the gradient is wrong for x"
    assert said["test_none"].startswith("the cotangent of 'x' is None, where an array of shape")


def test_of_what_the_users_code_raises_only_his_frames_are_shown(session):
    text = section(session, "test_raises")
    assert ">       check_gradient(gradient, loss, x)\n" in text
    assert "return helper(x)\n" in text
    assert ">       return jnp.dot(x, jnp.ones((7, 2)))\n" in text
    assert "\nE       TypeError: dot_general requires" in text
    for internal in ("compare/", "site-packages", "JAX has removed", "another exception"):
        assert internal not in text


def test_a_cause_of_the_users_own_is_kept(session):
    text = section(session, "test_has_a_cause")
    assert "E           KeyError: 'missing'" in text
    assert "The above exception was the direct cause of the following exception" in text
    assert "ValueError: no such parameter" in text
    assert "compare/" not in text


def test_other_failures_are_left_alone(session):
    assert "E       assert (3,) == (4,)" in section(session, "test_without_a_check")


def test_the_gradients_are_counted(session):
    assert "\nhandgrad: 6 gradients verified in 10 checks, 4 of them not right\n" in session


def test_a_fixture_that_imports_the_checks_counts_them(pytester):
    pytester.makepyfile("""
        def test_square(handgrad_check_gradient):
            import numpy as np

            handgrad_check_gradient(lambda x: 2 * x, lambda x: (x**2).sum(), np.ones(3))
    """)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines("handgrad: 1 gradient verified in 1 check")


def test_the_whole_traceback_can_be_had(pytester):
    pytester.makepyfile(CHECKS)
    result = pytester.runpytest_subprocess("--full-trace", "-k", "test_raises")
    assert "compare/check.py" in result.stdout.str()


def test_the_plugin_imports_no_jax_and_is_silent_without_checks(pytester):
    pytester.makepyfile("""
        import sys

        def test_clean(pytestconfig):
            assert pytestconfig.pluginmanager.hasplugin("handgrad")
            assert not {"jax", "jaxlib", "numpy"} & sys.modules.keys()
    """)
    result = pytester.runpytest_subprocess("-p", "no:jaxtyping")  # Equinox's, which imports JAX
    result.assert_outcomes(passed=1)
    assert "handgrad:" not in result.stdout.str()


def test_fixtures_and_option_are_described(pytester):
    result = pytester.runpytest_subprocess("--fixtures", "--help")
    result.stdout.fnmatch_lines("*--handgrad-seed=N*")
    result = pytester.runpytest_subprocess("--fixtures")
    result.stdout.fnmatch_lines(["handgrad_check*", "*seeded by --handgrad-seed*"])


def test_nothing_stays_patched(pytester):
    from handgrad.compare import check

    examine = check.__globals__["examine"]
    pytester.makepyfile("def test(): pass")
    pytester.runpytest_inprocess().assert_outcomes(passed=1)
    assert check.__globals__["examine"] is examine
