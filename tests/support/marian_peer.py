"""transformers' side of test_marian_peers.py, in an environment of its own.

Reads a line of JSON: {"folder", "config": of MarianConfig, "eos_bias", "sources", "target",
"extra_length", "alpha"}. Makes a MarianMTModel of random numbers, saves it to the folder, and
prints {"logits": [B, T, V], "greedy", "beam": ids of each source alone, `</s>` last}.
"""

import json
import sys

import torch  # pyright: ignore[reportMissingImports]
from transformers import MarianConfig, MarianMTModel  # pyright: ignore[reportMissingImports]

request = json.loads(sys.stdin.readline())
config = MarianConfig(**request["config"])
torch.manual_seed(0)
model = MarianMTModel(config).eval()
with torch.no_grad():
    # What sub-layers add is little, and norms' scales are of either sign: then a word is not
    # followed by itself for ever.
    for name, parameter in model.named_parameters():
        if "embed_positions" not in name:
            little = parameter.dim() == 1 or "out_proj" in name or "fc2" in name
            parameter.normal_(0.0, 0.1 if little else 0.3)
        if "norm.weight" in name:
            parameter += torch.randn_like(parameter).sign()
    model.final_logits_bias.normal_(std=0.3)
    model.final_logits_bias[0, config.eos_token_id] = request["eos_bias"]
model.generation_config.bad_words_ids = [[config.pad_token_id]]
model.save_pretrained(request["folder"])

pad, sources = config.pad_token_id, request["sources"]
longest = max(map(len, sources))
ids = torch.tensor([row + [pad] * (longest - len(row)) for row in sources])
with torch.no_grad():
    logits = model(
        input_ids=ids,
        attention_mask=(ids != pad).long(),
        decoder_input_ids=torch.tensor(request["target"]),
    ).logits


def generated(beams: int) -> list[list[int]]:
    found = []
    for row in sources:
        limit = len(row) + request["extra_length"]
        options = {"num_beams": beams}
        if beams > 1:
            options |= {"length_penalty": request["alpha"], "early_stopping": "never"}
        ids = model.generate(torch.tensor([row]), max_new_tokens=limit, do_sample=False, **options)
        found.append([i for i in ids[0, 1:].tolist() if i != pad])
    return found


print(json.dumps({"logits": logits.tolist(), "greedy": generated(1), "beam": generated(4)}))
