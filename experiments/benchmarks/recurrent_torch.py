"""PyTorch's side of recurrent.py: torch.nn.RNN, GRU and LSTM. Imports nothing of ours.

Reads {"family", "rows", "length", "width", "layers", "calls"} a line, answers {"seconds"}: of so
many calls forwards and backwards.
"""

import json
import sys
import time

import torch  # pyright: ignore[reportMissingImports]


def prepare(case: dict) -> tuple:
    """The layers, their input and the derivative by their output."""
    kind = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[case["family"]]
    layers = kind(case["width"], case["width"], case["layers"])
    shape = case["length"], case["rows"], case["width"]
    return layers, torch.randn(shape, requires_grad=True), torch.randn(shape)


def step(layers: torch.nn.Module, x: torch.Tensor, cotangent: torch.Tensor) -> None:
    """Gradients of all parameters and of the input."""
    out, _ = layers(x)
    torch.autograd.grad(out, [*layers.parameters(), x], cotangent)


def main() -> None:
    """Answers until its input ends."""
    known: dict = {}
    for line in sys.stdin:
        case = json.loads(line)
        calls = case.pop("calls")
        if known.get("case") != case:
            known = {"case": case, "made": prepare(case)}
            step(*known["made"])
        start = time.perf_counter()
        for _ in range(calls):
            step(*known["made"])
        seconds = time.perf_counter() - start
        time.sleep(0.3)  # its threads spin for a while and would slow whoever is next
        print(json.dumps({"seconds": seconds, "version": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()
