# ---
# jupyter:
#   jupytext:
#     text_representation:
#       format_name: percent
# ---

# %% [markdown]
# # Write a model family
#
# A family answers five calls: `encode`, `decode`, `logits`, `init_cache` and `step`. Whatever
# answers them trains, is decoded by a beam, is scored and is served by the same code. This one
# attends to nothing: position t of the decoder sees the mean of all words up to t (an average
# attention network, Zhang et al. 2018), and the mean of the source.

# %%
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

import transformer
from transformer import Seq2Seq, testing
from transformer.models.embedding import Embedding
from transformer.models.seq2seq import Cache, Memory, pick_parents
from transformer.sharding import parameter

# %% [markdown]
# The cache is what decoding carries from word to word: here the sum of the embeddings so far. A
# beam reorders it when hypotheses are replaced by others.


# %%
@struct.dataclass
class Sums(Cache):
    source_BD: Any  # the mean of the source
    total_BWD: Any  # the sum of the embeddings so far

    def reorder(self, parents_BW):
        return self.replace(total_BWD=pick_parents(self.total_BWD, parents_BW, axis=1))

    @property
    def per_source(self):
        return self.segments, self.source_BD

    @property
    def per_hypothesis(self):
        return self.total_BWD


# %% [markdown]
# The family itself. `parameter` gives each array the names of its axes, from which the mesh knows
# how to split it.


# %%
class Averages(Seq2Seq):
    takes_packed_rows = False

    @classmethod
    def unsupported(cls, config):
        return None if config.dropout == 0.0 else "this family has no dropout: set model.dropout=0"

    @classmethod
    def flops_per_token(cls, config, length):
        return 2.0 * (3 * config.d_model * config.d_model + config.d_model * config.vocab_size)

    def setup(self):
        c, init = self.config, nn.initializers.lecun_normal()
        self.embedding = Embedding(c, c.d_model)
        self.kernels = [
            parameter(self, name, init, ("embed", "hidden"), (c.d_model, c.d_model))
            for name in ("word", "words", "source")
        ]

    def encode(self, source):
        x_BSD = self.embedding.source(source.ids)
        return Memory(x_BSD, source.positions, source.segments)

    def _hidden(self, x_BTD, mean_BTD, source_BD):
        word, words, source = self.kernels
        return nn.tanh(x_BTD @ word + mean_BTD @ words + (source_BD @ source)[:, None])

    def decode(self, target, memory):
        x_BTD = self.embedding(target.ids)
        counts_T1 = jnp.arange(1, x_BTD.shape[1] + 1, dtype=jnp.float32)[:, None]
        return self._hidden(x_BTD, jnp.cumsum(x_BTD, axis=1) / counts_T1, mean_of(memory))

    def logits(self, hidden):
        return self.embedding.logits(hidden)

    def init_cache(self, memory, length, beams):
        B, _, D = memory.hidden.shape
        zeros_BWD = jnp.zeros((B, beams, D), jnp.float32)
        return Sums(jnp.int32(0), memory.segments, mean_of(memory), zeros_BWD)

    def step(self, tokens, cache):
        x_BWD = self.embedding(tokens)
        total_BWD = cache.total_BWD + x_BWD
        mean_BWD = total_BWD / (cache.index + 1).astype(jnp.float32)
        hidden_BWD = self._hidden(x_BWD, mean_BWD, cache.source_BD)
        return hidden_BWD, cache.replace(index=cache.index + 1, total_BWD=total_BWD)


def mean_of(memory):
    weights_BS1 = (memory.segments > 0).astype(jnp.float32)[..., None]
    return (memory.hidden * weights_BS1).sum(1) / jnp.maximum(weights_BS1.sum(1), 1.0)


# %% [markdown]
# First a unit test on a CPU: what `step` says word by word is what `decode` says of the whole
# sentence.

# %%
config = testing.model_config(family=f"{__name__}:Averages", dropout=0.0)
batch = testing.random_batch(vocab_size=config.vocab_size)
with testing.layout():
    model, variables = testing.initialised(config, batch)
    memory = model.apply(variables, batch.source, method="encode")
    hidden_BTD = model.apply(variables, batch.target, memory, method="decode")
    cache = model.apply(variables, memory, batch.target.ids.shape[1], 1, method="init_cache")
    step = jax.jit(lambda tokens, cache: model.apply(variables, tokens, cache, method="step"))
    for t in range(batch.target.ids.shape[1]):
        hidden_BWD, cache = step(batch.target.ids[:, t : t + 1], cache)
        np.testing.assert_allclose(hidden_BWD[0], hidden_BTD[0, t : t + 1], rtol=1e-4, atol=1e-5)

# %% [markdown]
# Then it trains, translates and is scored as any other family. Sixty steps teach it little, and
# what it can never know is the order of the source's words: that is what attention adds.

# %%
experiment = transformer.config.base("smoke")
experiment.model.family = f"{__name__}:Averages"
experiment.model.dropout = 0.0
transformer.train(transformer.Config.of(experiment), "runs/averages")

run = transformer.open_run("runs/averages")
print(run.translate(["la casa roja"])[0][0].text)
print(run.evaluate("test").table())
