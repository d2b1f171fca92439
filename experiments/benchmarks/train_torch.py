"""PyTorch's side of train.py: a step written by hand on torch.nn's Transformer layers.

The same model, weights and batch as ours, from a file of arrays; imports nothing of ours.

Reads lines of JSON: {"arrays": FILE, "model": {...}, "device", "compile"} makes the model and
answers {"loss": of the batch before any update, without dropout}; {"calls"} answers {"seconds"}: of
so many training steps.
"""

import json
import math
import sys
import time

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]


class Transformer(nn.Module):
    """AIAYN's, post-norm, one table for both embeddings and the output projection."""

    def __init__(self, model: dict, arrays: dict):
        super().__init__()
        D, self.dropout = model["d_model"], nn.Dropout(model["dropout"])
        options = {
            "d_model": D,
            "nhead": model["heads"],
            "dim_feedforward": model["d_ff"],
            "dropout": model["dropout"],
            "batch_first": True,
            "layer_norm_eps": 1e-6,
        }
        encoder = nn.TransformerEncoderLayer(**options)
        decoder = nn.TransformerDecoderLayer(**options)
        self.encoder = nn.TransformerEncoder(encoder, model["layers"], enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(decoder, model["layers"])
        for layer in [*self.encoder.layers, *self.decoder.layers]:
            layer.dropout = nn.Identity()  # between the feed-forward's products: not in the paper
            layer.self_attn.dropout = 0.0
        for layer in self.decoder.layers:
            layer.multihead_attn.dropout = 0.0
        self.table = nn.Parameter(torch.from_numpy(arrays["embedding/table"]))
        self.register_buffer("positions", torch.from_numpy(arrays["positions"]))
        for side, layers in (("encoder", self.encoder.layers), ("decoder", self.decoder.layers)):
            for number, layer in enumerate(layers):
                _load(layer, side, number, arrays)

    def _words(self, ids: torch.Tensor) -> torch.Tensor:
        x = functional.embedding(ids, self.table) * math.sqrt(self.table.shape[1])
        return self.dropout(x + self.positions[: ids.shape[1]])

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        T = target.shape[1]
        causal = torch.ones(T, T, dtype=torch.bool, device=target.device).triu(1)
        padding = source == 0
        memory = self.encoder(self._words(source), src_key_padding_mask=padding)
        hidden = self.decoder(
            self._words(target),
            memory,
            tgt_mask=causal,
            tgt_is_causal=True,
            memory_key_padding_mask=padding,
        )
        return functional.linear(hidden, self.table)


def _load(layer: nn.Module, side: str, number: int, arrays: dict) -> None:
    """Our kernels, [D, H, K] and [H, U, D], as theirs: rows are what a layer puts out."""
    at = lambda name: torch.from_numpy(arrays[f"{side}/{name}"][number])  # noqa: E731
    attentions = {"self_attention": layer.self_attn}
    norms = [layer.norm1, layer.norm2]
    if side == "decoder":
        attentions["cross_attention"] = layer.multihead_attn
        norms.append(layer.norm3)
    with torch.no_grad():
        for name, attention in attentions.items():
            into = [at(f"{name}/{kind}").flatten(1).T for kind in ("query", "key", "value")]
            attention.in_proj_weight.copy_(torch.cat(into))
            attention.out_proj.weight.copy_(at(f"{name}/output").flatten(0, 1).T)
            attention.in_proj_bias.zero_()
            attention.out_proj.bias.zero_()
        for linear, kind in ((layer.linear1, "up"), (layer.linear2, "down")):
            linear.weight.copy_(at(f"feed_forward/{kind}").T)
            linear.bias.zero_()
        for norm in norms:
            norm.weight.fill_(1.0)
            norm.bias.zero_()


class Case:
    """A model with its optimizer and its batch, on a device."""

    def __init__(self, arrays: str, model: dict, device: str, compiled: bool):
        with np.load(arrays) as file:
            weights = dict(file)
        self.device = device
        self.model = Transformer(model, weights).to(device)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=1e-3, betas=(0.9, 0.98), eps=1e-9
        )
        ids = (torch.from_numpy(weights[name]).long() for name in ("source", "target", "labels"))
        self.batch = [x.to(device) for x in ids]
        self.smoothing = model["smoothing"]
        self.loss = torch.compile(self._loss) if compiled else self._loss

    def _loss(self) -> torch.Tensor:
        source, target, labels = self.batch
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            logits = self.model(source, target)
        return functional.cross_entropy(
            logits.float().flatten(0, 1),
            labels.flatten(),
            ignore_index=0,
            label_smoothing=self.smoothing,
        )

    def start(self) -> float:
        """The loss before any update, without dropout; then training begins."""
        self.model.eval()
        with torch.no_grad():
            loss = self._loss().item()
        self.model.train()
        return loss

    def steps(self, calls: int) -> float:
        """Seconds."""
        start = time.perf_counter()
        for _ in range(calls):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.loss()
            loss.backward()
            self.optimizer.step()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start


def main() -> None:
    """Answers until its input ends."""
    case = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "arrays" in request:
                compiled = request.pop("compile")
                case = Case(**request, compiled=compiled)
                answer = {"loss": case.start(), "version": torch.__version__}
            else:
                assert case is not None
                answer = {"seconds": case.steps(request["calls"])}
                time.sleep(0.3)  # its threads spin for a while and would slow whoever is next
        except RuntimeError as error:  # out of memory
            answer = {"error": str(error).split("\n")[0]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
