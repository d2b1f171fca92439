"""TFDS: a small builder, really prepared and read; no TensorFlow anywhere."""

import socket
import subprocess
import sys

import pytest

from transformer.data.sources import Tfds
from transformer.errors import UserError

PAIRS = [(f"a red house {i}", f"una casa roja número {i}") for i in range(13)]

DEFINE = """
import tensorflow_datasets as tfds

class TinyPairs(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.2.3")

    def _info(self):
        features = tfds.features.Translation(languages=("en", "es"))
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
        return {"train": self._generate_examples(13), "validation": self._generate_examples(3)}

    def _generate_examples(self, count):
        for i in range(count):
            yield i, {"en": f"a red house {i}" * (i != 2), "es": f"una casa roja número {i}"}
"""

READ = """
import sys
from transformer.data import Pair, Problem
from transformer.data.sources import Tfds
corpus = Tfds("tiny_pairs", "en", "es", "train", "validation", "", sys.argv[1])
pairs = list(corpus.pairs("train"))
assert len(pairs) == 13 and len(list(corpus.pairs("dev"))) == 3, pairs
assert Pair("a red house 7", "una casa roja número 7") in pairs
assert Pair("", "una casa roja número 2", Problem.EMPTY) in pairs
assert corpus.origins("dev") == {"tfds": "tiny_pairs/1.2.3 validation"}
assert corpus.has("dev") and not corpus.has("test")
assert corpus.fingerprint("dev") != corpus.fingerprint("train")
assert "tensorflow" not in sys.modules
"""


def python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Prepared on first use by a process that knows the builder."""
    folder = tmp_path_factory.mktemp("tfds")
    done = python(DEFINE + READ, folder)
    assert done.returncode == 0, done.stderr
    return folder


def corpus(data_dir, **changes):
    options = {
        "name": "tiny_pairs",
        "source_language": "en",
        "target_language": "es",
        "train": "train",
        "dev": "validation",
        "test": "",
        "data_dir": str(data_dir),
    }
    return Tfds(**{**options, **changes})


def refusal(corpus):
    with pytest.raises(UserError) as caught:
        list(corpus.pairs("train"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_prepared_data_are_read_without_their_builder_and_without_tensorflow(data_dir):
    done = python(READ, data_dir)
    assert done.returncode == 0, done.stderr


def test_a_slice_of_a_split(data_dir):
    assert len(list(corpus(data_dir, train="train[:3]").pairs("train"))) == 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train": "trian"}, "Unknown split 'trian'"),
        ({"source_language": "fr"}, "data.tfds.source_language=fr: tiny_pairs has en, es"),
        ({"name": "tiny_pears"}, "data.tfds.name=tiny_pears: TFDS has no such data set"),
        ({"name": "wmt14_translate/xx-en"}, "xx-en not found"),
    ],
)
def test_a_name_that_does_not_exist_is_refused(data_dir, changes, says):
    assert says in refusal(corpus(data_dir, **changes))


def test_without_network_the_message_says_how_to_prepare_it_elsewhere(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    wmt = corpus(tmp_path, name="wmt14_translate/de-en", target_language="de")
    assert wmt.fingerprint("train")  # needs no data
    message = refusal(wmt)
    assert "could not be prepared" in message and "Name or service not known" in message
    assert "import tensorflow_datasets as tfds, tensorflow_datasets.translate.wmt14; " in message
    assert "tfds.builder('wmt14_translate/de-en', file_format='array_record'" in message
    assert message.endswith(f"to {tmp_path}/wmt14_translate here")
    assert "tensorflow" not in sys.modules
