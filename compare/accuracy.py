"""The second tier: is the code accurate in the dtype and on the device it runs on?

Measured, never judged together with the derivation: the jitted candidate and the jitted autodiff
of the reference run in the user's own precision, and both are held against the float64 truth.
"""

import collections
import contextlib
import copy
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.compare.problem import Problem
from handgrad.compare.report import Accuracy
from handgrad.compare.witness import jiggle

_COMPILED: collections.OrderedDict[Any, Callable] = collections.OrderedDict()
_KEPT = 128
# XLA's own passes, fusion among them, decide what is rounded; LLVM's, which take most of the time
# to compile, only whether a product and a sum are rounded together.
QUICKLY = {"xla_backend_optimization_level": 0}


class Run:
    """Both sides compiled and run in the user's configuration, in two threads.

    `precision`: of matrix products, instead of the one that the user has set.
    """

    def __init__(
        self,
        problem: Problem,
        cotangents: Sequence[np.ndarray],
        keys: Sequence[Any],
        precision: str | None = None,
    ):
        self.problem, self._keys = problem, keys
        self._dys = [
            jnp.asarray(c, d) for c, d in zip(cotangents, problem.cotangent_dtypes, strict=True)
        ]
        self.cotangents = [
            np.asarray(dy).astype(c.dtype) for dy, c in zip(self._dys, cotangents, strict=True)
        ]
        self._settings = _settings()
        device = self._settings[jax.default_device] or jax.local_devices()[0]
        self.device = getattr(device, "platform", str(device))
        if precision is not None:
            self._settings[jax.default_matmul_precision] = precision
        self._start(problem.run_values)

    def _start(self, given: list) -> None:
        """Run at these values; in float64 they are `values`."""
        p = self.problem
        self.values = [
            np.asarray(x).astype(v.value.dtype) for x, v in zip(given, p.variables, strict=True)
        ]
        options = None if p.large or self.device != "cpu" else QUICKLY
        pool = ThreadPoolExecutor(2, thread_name_prefix="handgrad")
        self._futures: list[Future] = [
            pool.submit(_run, self._settings, options, key, function, [*given, *self._dys])
            for key, function in zip(
                self._keys, (p.candidate_row, p.reference_gradients), strict=True
            )
        ]
        pool.shutdown(wait=False)

    def nearby(self, salt: np.uint64) -> "Run":
        """The same at inputs some ulps away, where other roundings happen."""
        dtypes = [jnp.result_type(v.run) for v in self.problem.variables]
        other = copy.copy(self)
        other._start(
            [
                jnp.asarray(jiggle(x, salt, 4 * float(jnp.finfo(d).eps)), d)
                for x, d in zip(self.values, dtypes, strict=True)
            ]
        )
        return other

    def hand(self) -> list:
        """The candidate's results; raises what the candidate raised."""
        return self._futures[0].result()

    def accuracy(
        self, truth: Sequence[np.ndarray], doubtful: dict[int, np.ndarray]
    ) -> list[Accuracy]:
        """Errors of the gradients against the truth at the inputs as the run rounded them.

        `truth`: along its first axis the gradient there, then at inputs half an ulp away.
        `doubtful`: elements, by variable, at which the truth itself has lost its digits, or at
        which hand and autodiff may differ by right; they are left out, as are nan and inf.
        """
        hand = self.hand()[-len(self.problem.verified) :]
        autodiff = self._futures[1].result()
        found = []
        for h, i in zip(hand, self.problem.verified, strict=True):
            a, v, keep = autodiff[i], self.problem.variables[i], ~doubtful[i]
            g, *moved = truth[i]
            keep &= np.isfinite(g)
            if not keep.all():
                h, a, g, *moved = (x[keep] for x in (h, a, g, *moved))
            if not g.size:
                continue
            inherent = max(_ulps(m, g, a.dtype) for m in moved)
            found.append(
                Accuracy(
                    v.path,
                    str(a.dtype),
                    _ulps(h, g, a.dtype),
                    _ulps(a, g, a.dtype),
                    inherent if np.isfinite(inherent) else 0.0,
                )
            )
        return found


def _ulps(x: Any, truth: np.ndarray, dtype: Any) -> float:
    x = np.asarray(x).astype(truth.dtype)
    size = np.abs(truth)
    scale = np.maximum(size, np.sqrt(np.mean(size**2)))
    info = jnp.finfo(dtype)
    ulp = float(info.eps) * np.maximum(scale, float(info.tiny))
    with np.errstate(all="ignore"):
        overflow = np.isinf(x) & (size > float(info.max))
        error = np.where(overflow, 0.0, np.abs(x - truth) / ulp)
    return float(np.where(np.isnan(error), np.inf, error).max())


def _run(
    settings: dict, options: Any, key: Any, function: Callable, values: list
) -> list[np.ndarray]:
    with contextlib.ExitStack() as stack:
        for manager, value in settings.items():
            stack.enter_context(manager(value))
        key = key, options is None
        compiled = _COMPILED.get(key)
        if compiled is None:
            compiled = _COMPILED[key] = jax.jit(function, compiler_options=options)
        _COMPILED.move_to_end(key)
        while len(_COMPILED) > _KEPT:
            _COMPILED.popitem(last=False)
        return [np.asarray(x) for x in jax.block_until_ready(compiled(*values))]


def _settings() -> dict:
    """The caller's JAX settings: contexts are thread-local, so the threads must enter them anew."""
    return {
        manager: getattr(jax.config, "jax_" + manager.__name__)
        for manager in (
            jax.enable_x64,
            jax.default_device,
            jax.default_matmul_precision,
            jax.numpy_dtype_promotion,
            jax.numpy_rank_promotion,
        )
    }
