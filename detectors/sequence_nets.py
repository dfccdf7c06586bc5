"""Small networks over frames, for :mod:`detectors.compare`: a depthwise CNN and a CRNN (JAX).

Both see the windows of :func:`detectors.sequences.frames_of`: a pointwise layer, two depthwise
convolutions of 5 frames (Howard et al., MobileNets, 2017), then either statistics over time (mean,
deviation, maximum) or a gated recurrent unit (Cho et al., 2014) and the same statistics over
its states. Training is as hard on the channel as a telephone is: random equaliser, masked bands
and frames (Park et al., SpecAugment, 2019), mixed windows (Zhang et al., mixup, 2018),
smoothed answers, weight decay, averaged weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from detectors.features import BANDS
from detectors.sequences import CHANNELS

_WIDTH = 40
_STATES = 24
_KERNEL = 5
_STEPS = 1000
_BATCH = 256
_RATE = 2e-3
_DECAY = 2e-2
_SMOOTHED = 0.05
#: Windows scored at once.
_CHUNK = 2048

_Parameters = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SequenceNet:
    """A fitted network."""

    parameters: _Parameters
    log_odds: Callable[[NDArray[np.float16]], NDArray[np.float32]]
    """``(n, frames, CHANNELS)`` to ``(n,)``."""

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(int(np.prod(p.shape)) for p in self.parameters.values())


def _begin(key: Any, recurrent: bool) -> _Parameters:
    keys = jax.random.split(key, 9)

    def drawn(k: Any, *shape: int) -> Any:
        return jax.random.normal(k, shape) * np.sqrt(2 / np.prod(shape[:-1]))

    pooled = 3 * (_STATES if recurrent else _WIDTH)
    p = {
        "w0": drawn(keys[0], CHANNELS, _WIDTH),
        "b0": jnp.zeros(_WIDTH),
        "d1": drawn(keys[1], _KERNEL, _WIDTH) * 0.5,
        "w1": drawn(keys[2], _WIDTH, _WIDTH),
        "b1": jnp.zeros(_WIDTH),
        "d2": drawn(keys[3], _KERNEL, _WIDTH) * 0.5,
        "w2": drawn(keys[4], _WIDTH, _WIDTH),
        "b2": jnp.zeros(_WIDTH),
        "wo": drawn(keys[5], pooled, 32),
        "bo": jnp.zeros(32),
        "wp": drawn(keys[6], 32, 1) * 0.3,
        "bp": jnp.zeros(1),
    }
    if recurrent:
        p |= {
            "wg": drawn(keys[7], _WIDTH, 3 * _STATES) * 0.5,
            "ug": drawn(keys[8], _STATES, 3 * _STATES) * 0.5,
            "bg": jnp.zeros(3 * _STATES),
        }
    return p


def _depthwise(h: Any, kernel: Any) -> Any:
    half = _KERNEL // 2
    padded = jnp.pad(h, ((0, 0), (half, half), (0, 0)))
    return sum(padded[:, j : j + h.shape[1]] * kernel[j] for j in range(_KERNEL))


def _gated(p: _Parameters, h: Any, mask: Any) -> Any:
    """States of a gated recurrent unit; frames that do not count leave the state alone."""
    inputs = h @ p["wg"] + p["bg"]
    two = 2 * _STATES

    def step(state: Any, now: Any) -> Any:
        x, counts = now
        gates = jax.nn.sigmoid(x[:, :two] + state @ p["ug"][:, :two])
        update, reset = gates[:, :_STATES], gates[:, _STATES:]
        fresh = jnp.tanh(x[:, two:] + (reset * state) @ p["ug"][:, two:])
        state = state + counts * update * (fresh - state)
        return state, state

    begin = jnp.zeros((h.shape[0], _STATES))
    _, states = jax.lax.scan(step, begin, (inputs.transpose(1, 0, 2), mask.transpose(1, 0, 2)))
    return states.transpose(1, 0, 2) * mask


def _forward(p: _Parameters, x: Any, dropped: Any = None) -> Any:
    mask = x[:, :, -1:]
    count = mask.sum(1) + 1e-3
    h = jax.nn.relu(x @ p["w0"] + p["b0"]) * mask
    for n in ("1", "2"):
        h = jax.nn.relu(_depthwise(h, p["d" + n]) @ p["w" + n] + p["b" + n]) * mask
    if "wg" in p:
        h = _gated(p, h, mask)
    mean = h.sum(1) / count
    deviation = jnp.sqrt(jnp.maximum((h * h).sum(1) / count - mean**2, 0) + 1e-4)
    pooled = jnp.concatenate([mean, deviation, h.max(1)], 1)
    if dropped is not None:
        pooled = pooled * jax.random.bernoulli(dropped, 0.7, pooled.shape) / 0.7
    return (jax.nn.relu(pooled @ p["wo"] + p["bo"]) @ p["wp"] + p["bp"])[:, 0]


def _augmented(key: Any, x: Any, y: Any) -> tuple[Any, Any]:
    keys = jax.random.split(key, 8)
    size, mask = x.shape[0], x[:, :, -1:]
    at = jnp.linspace(-1, 1, BANDS)
    bent = jax.random.normal(keys[0], (size, 3)) * jnp.array([0.25, 0.15, 0.15])
    curve = bent[:, :1] * at + bent[:, 1:2] * (at**2 - 0.33) + bent[:, 2:] * jnp.sin(3 * at)
    x = x.at[:, :, :BANDS].add(curve[:, None] * mask)
    middle = jax.random.randint(keys[1], (size, 1), 0, BANDS)
    width = jax.random.randint(keys[2], (size, 1), 0, 4)
    masked = jnp.abs(jnp.arange(BANDS)[None] - middle) < width
    x = x.at[:, :, :BANDS].multiply(1 - masked[:, None].astype(x.dtype))
    x = x * jax.random.bernoulli(keys[3], 0.9, (size, x.shape[1], 1))
    noise = 0.05 * jax.random.normal(keys[4], x.shape) * x[:, :, -1:]
    x = x.at[:, :, :-1].add(noise[:, :, :-1])
    share = jax.random.beta(keys[5], 0.3, 0.3, (size,))
    share = jnp.maximum(share, 1 - share)
    share = jnp.where(jax.random.bernoulli(keys[6], 0.5, (size,)), share, 1.0)
    other = jax.random.permutation(keys[7], size)
    both = jnp.maximum(x[:, :, -1:], x[other][:, :, -1:] * (share < 1)[:, None, None])
    x = share[:, None, None] * x + (1 - share)[:, None, None] * x[other]
    return x.at[:, :, -1:].set(both), share * y + (1 - share) * y[other]


def _loss(p: _Parameters, x: Any, y: Any, dropped: Any) -> Any:
    odds = _forward(p, x, dropped)
    return jnp.mean(jnp.maximum(odds, 0) - odds * y + jnp.log1p(jnp.exp(-jnp.abs(odds))))


def _adam(p: _Parameters, gradient: Any, first: Any, second: Any, at: Any) -> tuple[Any, ...]:
    """One step of AdamW (Loshchilov & Hutter 2019) under a warm, then falling rate."""
    rate = _RATE * jnp.minimum(1, at / 100) * 0.5 * (1 + jnp.cos(jnp.pi * at / _STEPS)) + 1e-5
    first = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, first, gradient)
    second = jax.tree.map(lambda a, b: 0.99 * a + 0.01 * b * b, second, gradient)

    def moved(w: Any, m: Any, v: Any) -> Any:
        change = (m / (1 - 0.9 ** (at + 1))) / (jnp.sqrt(v / (1 - 0.99 ** (at + 1))) + 1e-8)
        return w - rate * (change + _DECAY * w)

    return jax.tree.map(moved, p, first, second), first, second


def fit_sequence_net(
    x: NDArray[np.float16],
    raised: NDArray[np.float64],
    weight: NDArray[np.float64],
    seed: int,
    *,
    recurrent: bool,
) -> SequenceNet:
    """Fit a depthwise CNN, or a CRNN when ``recurrent``, on weighted windows.

    Args:
        x: ``(n, frames, CHANNELS)`` float16.
        raised: ``(n,)`` 0 to 1.
        weight: ``(n,)``, how often a window is drawn.
        seed: of weights, batches and augmentation.
        recurrent: with the gated recurrent unit.
    """
    key, begin = jax.random.split(jax.random.PRNGKey(seed))
    p = _begin(begin, recurrent)
    first = jax.tree.map(jnp.zeros_like, p)
    second, averaged = first, p

    def moved(p: Any, first: Any, second: Any, averaged: Any, batch: Any, key: Any, at: Any) -> Any:
        changed, dropped = jax.random.split(key)
        xs = batch[0].astype(jnp.float32)
        xs, ys = _augmented(changed, xs, batch[1] * (1 - _SMOOTHED) + _SMOOTHED / 2)
        gradient = jax.grad(_loss)(p, xs, ys, dropped)
        p, first, second = _adam(p, gradient, first, second, at)
        averaged = jax.tree.map(
            lambda a, b: jnp.where(at < _STEPS / 2, b, 0.995 * a + 0.005 * b), averaged, p
        )
        return p, first, second, averaged

    step = jax.jit(moved)
    rng = np.random.default_rng(seed)
    cumulated = np.cumsum(weight / weight.sum())
    for at in range(_STEPS):
        drawn = np.minimum(np.searchsorted(cumulated, rng.random(_BATCH)), len(x) - 1)
        key, now = jax.random.split(key)
        batch = (x[drawn], raised[drawn].astype(np.float32))
        p, first, second, averaged = step(p, first, second, averaged, batch, now, at)
    scored = jax.jit(lambda z: _forward(averaged, z.astype(jnp.float32)))

    def log_odds(z: NDArray[np.float16]) -> NDArray[np.float32]:
        parts = [np.asarray(scored(z[i : i + _CHUNK])) for i in range(0, len(z), _CHUNK)]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)

    return SequenceNet(averaged, log_odds)
