"""The Transformer and its options once more: NumPy, one sentence at a time, in float64.

Written from the papers, sharing nothing with the package but the names of its parameters.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from transformer.config import ModelConfig

Tree = dict[str, Any]


def erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf)(x)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + erf(x / 2**0.5)) / 2


FUNCTIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": gelu,
    "silu": silu,
    "geglu": gelu,
    "swiglu": silu,
}


class Sentence:
    """A model's equations, for a source of S words and a target of T, without padding."""

    def __init__(self, config: ModelConfig, params: Tree):
        self.c, self.p = config, params
        self.weights: list[np.ndarray] = []  # [T, S] of each head, as they come
        self.ratio = config.d_model / config.base_d_model if config.width_scaling == "mup" else 1

    def encode(self, ids: np.ndarray) -> np.ndarray:
        x_SD = self.embed("source", ids)
        for n in range(self.c.encoder_layers):
            layer = pick(self.p["encoder"], n)
            within = self.attention(layer["self_attention"], "source")
            parts = [
                ("self_attention", within),
                ("feed_forward", self.feed_forward(layer["feed_forward"])),
            ]
            x_SD = self.layer(layer, x_SD, parts, "source")
        return self.last_norm("encoder_norm", x_SD)

    def decode(self, ids: np.ndarray, memory_SD: np.ndarray) -> np.ndarray:
        x_TD = self.embed("target", ids)
        for n in range(self.c.decoder_layers):
            layer = pick(self.p["decoder"], n)
            within = self.attention(layer["self_attention"], "target")
            across = self.attention(layer["cross_attention"], "cross", memory_SD)
            forward = self.feed_forward(layer["feed_forward"])
            parts = [
                ("self_attention", within),
                ("cross_attention", across),
                ("feed_forward", forward),
            ]
            x_TD = self.layer(layer, x_TD, parts, "target")
        return self.last_norm("decoder_norm", x_TD)

    def logits(self, hidden_TD: np.ndarray) -> np.ndarray:
        e = self.p["embedding"]
        table = e["output_table"] if self.c.tied == "none" else e["table"]
        logits = hidden_TD @ table.T / self.ratio
        logits = logits + (e["output_bias"] if self.c.logits_bias else 0)
        cap = self.c.logit_soft_cap
        return cap * np.tanh(logits / cap) if cap else logits

    def embed(self, side: str, ids: np.ndarray) -> np.ndarray:
        c, e = self.c, self.p["embedding"]
        own = side == "source" and c.tied != "three_way"
        x = (e["source_table"] if own else e["table"])[ids]
        if c.scale_embeddings:
            x = x * math.sqrt(c.base_d_model if c.width_scaling == "mup" else c.d_model)
        for t in range(len(ids)):
            if c.positions.scheme == "learned":
                x[t] += self.p["positions"][side][t]
            for i in range(c.d_model // 2):
                angle = t / 10_000 ** (2 * i / c.d_model)
                if c.positions.scheme == "sinusoidal":
                    x[t, 2 * i] += math.sin(angle)
                    x[t, 2 * i + 1] += math.cos(angle)
                if c.positions.scheme == "sinusoidal_halves":
                    x[t, i] += math.sin(angle)
                    x[t, c.d_model // 2 + i] += math.cos(angle)
        return x

    def layer(self, p: Tree, x: np.ndarray, parts: list, side: str) -> np.ndarray:
        if self.c.sublayers == "parallel":
            functions = [function for _, function in parts]
            parts = [(parts[0][0], lambda y: sum(f(y) for f in functions))]
        for name, function in parts:
            norm = lambda y, which="norm", p=p[f"{name}_residual"]: self.norm(p[which], y)  # noqa: E731
            match self.c.norm:
                case "post":
                    x = norm(x + function(x))
                case "deepnorm":
                    x = norm(self.alpha(side) * x + function(x))
                case "pre":
                    x = x + function(norm(x))
                case "sandwich":
                    x = x + norm(function(norm(x)), "output_norm")
        return x

    def alpha(self, side: str) -> float:
        N, M = self.c.encoder_layers, self.c.decoder_layers
        return 0.81 * (N**4 * M) ** (1 / 16) if side == "source" else (3 * M) ** 0.25

    def last_norm(self, name: str, x: np.ndarray) -> np.ndarray:
        return self.norm(self.p[name], x) if self.c.norm in ("pre", "sandwich") else x

    def norm(self, p: Tree, x: np.ndarray) -> np.ndarray:
        if self.c.norm_function == "rms_norm":
            return x / np.sqrt((x**2).mean(-1, keepdims=True) + self.c.norm_epsilon) * p["scale"]
        deviation = np.sqrt(x.var(-1, keepdims=True) + self.c.norm_epsilon)
        return (x - x.mean(-1, keepdims=True)) / deviation * p["scale"] + p["bias"]

    def feed_forward(self, p: Tree) -> Any:
        bias = lambda name: p[name] if self.c.feed_forward_bias else 0  # noqa: E731
        f = FUNCTIONS[self.c.feed_forward]

        def apply(x: np.ndarray) -> np.ndarray:
            h = x @ p["up"] / self.ratio + bias("up_bias")
            if self.c.feed_forward in ("geglu", "swiglu"):
                h = h * f(x @ p["gate"] / self.ratio + bias("gate_bias"))
            else:
                h = f(h)
            return h @ p["down"] / self.ratio + bias("down_bias")

        return apply

    def attention(self, p: Tree, use: str, memory_SD: np.ndarray | None = None) -> Any:
        def apply(x: np.ndarray) -> np.ndarray:
            seen = x if memory_SD is None else memory_SD
            heads = [self.head(p, h, x, seen, use) for h in range(self.c.heads)]
            parts = [head @ p["output"][h] / self.ratio for h, head in enumerate(heads)]
            return np.sum(parts, axis=0) + (p["output_bias"] if self.c.attention_bias else 0)

        return apply

    def head(self, p: Tree, h: int, x: np.ndarray, seen: np.ndarray, use: str) -> np.ndarray:
        """The weighted values of query head h."""
        c, scheme = self.c, self.c.positions.scheme if use != "cross" else "none"
        g = h // (c.heads // (c.kv_heads or c.heads))

        def project(name: str, y: np.ndarray, number: int) -> np.ndarray:
            out = y @ p[name][:, number] / self.ratio
            return out + (p[f"{name}_bias"][number] if c.attention_bias else 0)

        q, k, v = project("query", x, h), project("key", seen, g), project("value", seen, g)
        if c.qk_norm:
            q, k = self.norm(p["query_norm"], q), self.norm(p["key_norm"], k)
        if scheme == "rotary":
            q, k = (turned(y, c.positions.rotary_base) for y in (q, k))
        scores = np.full((len(q), len(k)), -np.inf)
        for t in range(len(q)):
            for s in range(len(k) if use != "target" else t + 1):
                key = k[s]
                if scheme == "shaw":
                    clip = c.positions.shaw_clip
                    key = key + p["distance"][max(-clip, min(clip, s - t)) + clip]
                if c.width_scaling == "mup":
                    scores[t, s] = q[t] @ key * c.base_d_k**0.5 / c.d_k
                else:
                    scores[t, s] = q[t] @ key / c.d_k**0.5
                if scheme == "alibi":
                    scores[t, s] -= SLOPES[c.heads][h] * abs(t - s)
                if scheme == "t5":
                    bucket = t5_bucket(s - t, c, both_ways=use == "source")
                    scores[t, s] += self.p["positions"][use][bucket, h]
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        self.weights.append(weights / weights.sum(-1, keepdims=True))
        return self.weights[-1] @ v


class Continuation(Sentence):
    """A decoder alone: prompt and continuation as one sentence."""

    def decode(self, ids: np.ndarray, prompt: np.ndarray) -> np.ndarray:
        x = self.embed("target", np.concatenate([prompt, ids]))
        for n in range(self.c.decoder_layers):
            layer = pick(self.p["decoder"], n)
            within = self.attention(layer["self_attention"], "target")
            parts = [
                ("self_attention", within),
                ("feed_forward", self.feed_forward(layer["feed_forward"])),
            ]
            x = self.layer(layer, x, parts, "target")
        return self.last_norm("decoder_norm", x)[len(prompt) :]

    def alpha(self, side: str) -> float:
        return (2 * self.c.decoder_layers) ** 0.25


class Reading(Sentence):
    """An encoder alone, with whatever its readout makes of its source."""

    def alpha(self, side: str) -> float:
        return (2 * self.c.encoder_layers) ** 0.25

    def embed(self, side: str, ids: np.ndarray) -> np.ndarray:
        """Patches, then the class token before them, then positions."""
        c = self.c
        x = Sentence(replaced(c, "none"), self.p).embed("target", ids)  # the one table there is
        if c.patch > 1:
            kernel, patches = self.p["patches"]["kernel"] / self.ratio, []
            for start in range(0, len(x), c.patch):
                parts = enumerate(x[start : start + c.patch])
                patches.append(sum(vector @ kernel[place] for place, vector in parts))
            x = np.stack(patches)
        if c.readout == "class":
            scale = c.base_d_model if c.width_scaling == "mup" else c.d_model
            token = self.p["class_token"] * (math.sqrt(scale) if c.scale_embeddings else 1.0)
            x = np.concatenate([token[None], x])
        return x + self.positions(c, side, len(x))

    def positions(self, c: ModelConfig, side: str, count: int) -> np.ndarray:
        """What is added to embeddings: those of words that are zeros."""
        zeros = {**self.p, "embedding": {"table": np.zeros((1, c.d_model))}}
        shared = dataclasses.replace(c, tied="three_way")
        return Sentence(shared, zeros).embed(side, np.zeros(count, int))

    def read_out(self, ids: np.ndarray, count: int) -> np.ndarray:
        """Hidden states of the first `count` target positions."""
        x = self.encode(ids)
        if self.c.readout == "position":
            return x[:count]
        pooled, head = x[0] if self.c.readout == "class" else x.mean(0), self.p["readout"]
        x = pooled + self.positions(replaced(self.c, "sinusoidal"), "target", count)
        plain = "post" if self.c.norm == "deepnorm" else self.c.norm
        one = Reading(dataclasses.replace(self.c, norm=plain), self.p)
        x = one.layer(
            head, x, [("feed_forward", self.feed_forward(head["feed_forward"]))], "target"
        )
        return self.norm(head["norm"], x) if plain in ("pre", "sandwich") else x


def replaced(c: ModelConfig, scheme: str) -> ModelConfig:
    return dataclasses.replace(c, positions=dataclasses.replace(c.positions, scheme=scheme))


# Press et al. 2022, §3 prints those of 8 heads, 1/2 ... 1/256; of 4 every other one.
SLOPES = {8: [2.0**-i for i in range(1, 9)], 4: [2.0**-i for i in (2, 4, 6, 8)]}


def turned(x_TK: np.ndarray, base: float) -> np.ndarray:
    """Each pair of a head as a complex number, times e^(i · position · frequency)."""
    T, K = x_TK.shape
    pairs = x_TK[:, 0::2] + 1j * x_TK[:, 1::2]
    pairs = pairs * np.exp(1j * np.outer(np.arange(T), base ** (-np.arange(0, K, 2) / K)))
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(T, K)


def t5_bucket(ahead: int, c: ModelConfig, *, both_ways: bool) -> int:
    buckets, first = c.positions.t5_buckets, 0
    if both_ways:
        buckets //= 2
        first = buckets if ahead > 0 else 0
    steps = abs(ahead) if both_ways else -ahead
    if steps < buckets // 2:
        return first + steps
    share = math.log(steps / (buckets // 2)) / math.log(
        c.positions.t5_max_distance / (buckets // 2)
    )
    return first + min(buckets - 1, buckets // 2 + int(share * (buckets - buckets // 2)))


def pick(tree: Any, n: int) -> Any:
    """Layer n's parameters of a stack."""
    return {k: pick(v, n) for k, v in tree.items()} if isinstance(tree, dict) else tree[n]
