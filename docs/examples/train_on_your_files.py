# ---
# jupyter:
#   jupytext:
#     text_representation:
#       format_name: percent
# ---

# %% [markdown]
# # Train on your files
#
# From a file of sentence pairs to translations. The pairs here are made by a grammar that ships
# with the package; put your own file in its place.

# %%
import dataclasses
from pathlib import Path

import transformer
from transformer.data import CasaRoja

# %% [markdown]
# One file of both sides: a pair a line, a tab between source and target. JSON lines and two files
# of one side each are read as well.

# %%
folder = Path("my_text")
folder.mkdir(exist_ok=True)
grammar = CasaRoja(train_size=2_000, dev_size=50, test_size=50)
for split in ("train", "dev", "test"):
    lines = [f"{pair.source}\t{pair.target}\n" for pair in grammar.pairs(split)]
    (folder / f"{split}.tsv").write_text("".join(lines), encoding="utf-8")

# %% [markdown]
# The configuration starts from the defaults, here of a model that a CPU trains in seconds
# (`"smoke"`).

# %%
config = transformer.config.base("smoke")
config.data.source = "text"
for split in ("train", "dev", "test"):
    config.data.text[split] = str(folder / f"{split}.tsv")
config.model.d_model = 48
config.training.steps = 60
config.training.eval_bleu = True
transformer.train(transformer.Config.of(config), "runs/my_text")

# %% [markdown]
# The run's directory holds all that is needed to go on, and to translate. The same call goes on
# where it stopped.

# %%
run = transformer.open_run("runs/my_text", beam=4)
for sentence in ("la casa roja", "el perro negro"):
    print(sentence, "→", run.translate([sentence])[0][0].text)
print(run.evaluate("test").table())

# %% [markdown]
# How much text is it, and what of it was left out? `data_report.json` says, by line number.

# %%
print(Path("runs/my_text/data_report.json").read_text(encoding="utf-8")[:400])
print(dataclasses.asdict(run.config.data.leave_out))
