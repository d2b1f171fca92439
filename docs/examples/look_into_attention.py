# ---
# jupyter:
#   jupytext:
#     text_representation:
#       format_name: percent
# ---

# %% [markdown]
# # Look into attention
#
# What a trained model looks at while it writes each word, by layer and head. The run is made here
# in seconds, so it has learned little; give `open_run` the directory of one that was trained to its
# end.

# %%
import numpy as np

import transformer
from transformer.inspection import attention_png, word_map

config = transformer.config.base("smoke")
transformer.train(transformer.Config.of(config), "runs/attention")
run = transformer.open_run("runs/attention")

# %% [markdown]
# The mean over layers and heads, by word: in the terminal, and as a picture. The translation is
# given here; without it, the model's own is looked into.

# %%
view = run.attention("la casa roja", "the red house")
print(view.text())
view.save_png("attention.png")

# %% [markdown]
# The same weights by layer, head and piece. Each row says where one unit of attention went: it sums
# to 1.

# %%
cross_NBHTS = view.maps.cross_NBHTS
print("layers, 1, heads, target pieces, source pieces:", cross_NBHTS.shape)
np.testing.assert_allclose(cross_NBHTS.sum(-1), 1.0, rtol=1e-5)

for layer, weights_HTS in enumerate(cross_NBHTS[:, 0]):
    entropy_H = -(weights_HTS * np.log(weights_HTS + 1e-9)).sum(-1).mean(-1)
    print(f"layer {layer}: entropy of each head, nats:", np.round(entropy_H, 2))

# %% [markdown]
# One head, its pieces joined into words; and all heads of the last layer in one picture.

# %%
head = word_map(cross_NBHTS[-1, 0, 0], view.target_pieces, view.source_pieces)
print(head.target, "over", head.source)
attention_png(
    "heads.png", cross_NBHTS[-1, 0], view.target_pieces, view.source_pieces, title="Heads"
)
