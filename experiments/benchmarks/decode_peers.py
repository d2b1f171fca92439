"""The others' side of decode.py: Hugging Face's `generate` and CTranslate2, on one saved model.

Imports nothing of ours. Reads lines of JSON:

    {"folder", "sources": ids of rows of one length, "threads"}
        loads the folder's MarianMTModel, converts it, and answers {"versions": of the libraries}
    {"contender": one of CONTENDERS, "beam", "tokens"}
        answers {"seconds", "ids": of each row, so many tokens}

CTranslate2 says `tokens` tokens that are no `</s>`, `generate` one less and `</s>`.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import ctranslate2  # pyright: ignore[reportMissingImports]
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]
from ctranslate2.converters import (  # pyright: ignore[reportMissingImports]
    TransformersConverter,
)

QUANTIZATION = {"CTranslate2": "float32", "CTranslate2, int8": "int8"}
CONTENDERS = ("Hugging Face", *QUANTIZATION)


class Words:
    """What the converter asks of a tokenizer: a piece for each id, its number."""

    eos_token, unk_token = "</s>", "<unk>"

    def __init__(self, config: Any):
        special = {
            config.eos_token_id: self.eos_token,
            1: self.unk_token,
            config.pad_token_id: "<pad>",
        }
        self.pieces = [special.get(i, str(i)) for i in range(config.vocab_size)]

    def get_vocab(self) -> dict[str, int]:
        return {piece: i for i, piece in enumerate(self.pieces)}


class Converter(TransformersConverter):
    """CTranslate2's own, for a folder without a tokenizer."""

    def load_tokenizer(self, *_: Any, **__: Any) -> Words:
        return Words(transformers.MarianConfig.from_pretrained(self._model_name_or_path))


class Contenders:
    """The models, ready to be asked in turns."""

    def __init__(self, folder: str, sources: list[list[int]], threads: int):
        torch.set_num_threads(threads)
        self.model = transformers.MarianMTModel.from_pretrained(folder).eval()
        self.config, self.ids = self.model.config, torch.tensor(sources)
        self.words = Words(self.config).pieces
        self.rows = [[self.words[i] for i in row] for row in sources]
        self.translators = {}
        for name, kind in QUANTIZATION.items():
            converted = Path(folder) / kind
            Converter(folder).convert(str(converted), quantization=kind)
            self.translators[name] = ctranslate2.Translator(
                str(converted), compute_type=kind, inter_threads=1, intra_threads=threads
            )

    def answer(self, contender: str, beam: int, tokens: int) -> dict[str, Any]:
        """One batch of all rows."""
        said = self._generate if contender == "Hugging Face" else self._translate
        start = time.perf_counter()
        ids = said(contender, beam, tokens)
        return {"seconds": time.perf_counter() - start, "ids": ids}

    def _generate(self, _: str, beam: int, tokens: int) -> list[list[int]]:
        options = {"length_penalty": 1.0, "early_stopping": False} if beam > 1 else {}
        found = self.model.generate(
            self.ids, num_beams=beam, max_new_tokens=tokens, do_sample=False, **options
        )
        return found[:, 1:].tolist()

    def _translate(self, contender: str, beam: int, tokens: int) -> list[list[int]]:
        found = self.translators[contender].translate_batch(
            self.rows,
            beam_size=beam,
            length_penalty=1.0,
            min_decoding_length=tokens,
            max_decoding_length=tokens,
        )
        number = {piece: i for i, piece in enumerate(self.words)}
        return [[number[piece] for piece in result.hypotheses[0]] for result in found]


def main() -> None:
    """Answers until its input ends."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    contenders = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "folder" in request:
                contenders = Contenders(**request)
                libraries = (torch, transformers, ctranslate2)
                answer = {"versions": {lib.__name__: str(lib.__version__) for lib in libraries}}
            else:
                assert contenders is not None
                answer = contenders.answer(**request)
                time.sleep(0.3)  # threads spin for a while and would slow whoever is next
        except (RuntimeError, ValueError) as error:
            answer = {"error": str(error).split("\n")[0]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
