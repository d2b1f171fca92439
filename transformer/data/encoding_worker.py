"""A process that encodes: jobs come in on standard input, chunks go out on standard output."""

import gc
import os
import pickle
import sys

from transformer.data.chunks import Job, encode, send
from transformer.data.tokenizers import SentencePieceTokenizer


def main() -> None:
    """Encodes until its input ends, as it does when the process that feeds it is gone."""
    gc.disable()  # its lists make no cycles
    jobs = sys.stdin.buffer
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as chunks:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever prints is not a chunk
        tokenizer = SentencePieceTokenizer(pickle.load(jobs), threads=1)
        while True:
            try:
                job: Job = pickle.load(jobs)
            except EOFError:
                return
            send(chunks, encode(job, tokenizer))


if __name__ == "__main__":
    main()
