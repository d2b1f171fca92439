"""Real processes build, open and delete stores in one folder: each gets what it asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT

# Opens one of a few stores again and again; between that it deletes one, as epochs that are over
# are deleted by whoever is further on, or damages one.
BUILDER = """
import random, sys
from pathlib import Path
import numpy as np
from transformer import files
from transformer.data.chunks import PAIR, Chunk
from transformer.data.store import open_chunks

folder, seed, opens = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
draw = random.Random(seed)

def chunks(key):
    yield Chunk.of([[key, number] for number in range(20)], np.zeros(10, PAIR))

for _ in range(opens):
    key = draw.randrange(3)
    store = open_chunks(folder / str(key), lambda: chunks(key), vocab_size=300)
    assert [int(i) for i in store.source(4)] == [key, 8, 2], "another store"
    match draw.randrange(6):
        case 0:
            gone = folder / f".{key}.{draw.randbytes(16).hex()}"
            try:
                (folder / str(key)).rename(gone)
            except FileNotFoundError:
                pass
            files.discard(gone)
        case 1:
            try:
                with open(folder / str(key) / "sums.json", "wb") as file:
                    file.write(draw.choice([b"", b"null", b"[" * 5000]))
            except FileNotFoundError:
                pass
"""


def race(folder: Path, builders: int, opens: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BUILDER, str(folder), str(seed), str(opens)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(builders)
    ]
    errors = [process.communicate()[1] for process in processes]
    for process, said in zip(processes, errors, strict=True):
        assert process.returncode == 0, said[-2_000:]
    left = {path.name for path in folder.iterdir()}
    assert left <= {"0", "1", "2"}, "nothing unfinished is left"


def test_builders_of_the_same_stores_do_not_disturb_each_other(tmp_path: Path) -> None:
    race(tmp_path, builders=4, opens=60)


@pytest.mark.slow
def test_six_builders_open_often(tmp_path: Path) -> None:
    race(tmp_path, builders=6, opens=300)
