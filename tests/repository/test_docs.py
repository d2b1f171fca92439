"""Each block of code in README and docs runs; the notebooks in docs/examples, too.

A page's blocks run one after another, in a folder that has `experiments/`, whose files are here
smaller than any `:smoke`, a trained run, and text files. What this machine has not (a package to
install, a viewer, a cloud) does nothing.
"""

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import marian_model
from tests.support.processes import ROOT
from transformer import __main__ as main
from transformer.data import CasaRoja
from transformer.options import command_line

PAGES = [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
LANGUAGES = {"python", "sh", "text", "{toctree}", "{eval-rst}"}  # the last three are no code
# Nothing of these is here; what is theirs is tested elsewhere, or nobody's but theirs.
ABSENT = ("pip", "tensorboard", "gcloud", "./launch/quickstart", "./tests/run", "/tests/run")
LONG = ("compare", "table3", "verify")  # of `transformer`: minutes or hours, in tests of their own
SHRUNK = """

_whole = get_config

def get_config(variant=""):
    names = [name for name in variant.split(",") if name]
    config = _whole(",".join(names if "smoke" in names else [*names, "smoke"]))
    if hasattr(config, "training"):
        config.training.steps = min(config.training.steps, 14)
        config.training.eval_samples = 1
        text = _whole(variant).data
        if text.source in ("text", "files", "digits"):
            config.data.source = text.source
            config.data.tokenizer.vocab_size = text.tokenizer.vocab_size
    return config
"""


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and content of each fenced block."""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(.*)\n([\s\S]*?)^```$", text, re.MULTILINE):
        yield match[1].strip(), match[2]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_block_says_what_it_is(page: Path) -> None:
    assert {language for language, _ in blocks(page)} <= LANGUAGES


def commands(content: str) -> Iterator[list[str]]:
    """The arguments of each call of `transformer` in a block."""
    names = {command.__name__ for command in main.COMMANDS}
    for line in content.replace("\\\n", " ").split("\n"):
        try:
            words = shlex.split(line)
        except ValueError:  # a program's line, in quotes
            continue
        for i, (word, command) in enumerate(itertools.pairwise(words)):
            if word == "transformer" and command in names:
                yield [*itertools.takewhile(lambda w: w not in "|<>&", words[i + 1 :])]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_command_has_options_that_exist(page: Path) -> None:
    """Its experiment file exists, too: what is run by hand alone cannot name what has gone."""
    parser = command_line(main.COMMANDS)
    for language, content in blocks(page):
        for arguments in commands(content) if language == "sh" else ():
            options, others = parser.parse_known_args(arguments)
            assert all(word.startswith("--config.") for word in others), others
            if hasattr(options, "config") and options.config.startswith("experiments/"):
                assert (ROOT / options.config.partition(":")[0]).exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "experiments", folder / "experiments")
    for path in (folder / "experiments").glob("*.py"):
        if "def get_config" in (text := path.read_text(encoding="utf-8")) and path.stem != "base":
            path.write_text(text + SHRUNK, encoding="utf-8")
    shutil.copy(ROOT / "setup.cfg", folder)
    config = "--config=experiments/casa_roja.py"
    ran([sys.executable, "-m", "transformer", "train", config, "--workdir=runs/casa_roja"], folder)
    corpus = CasaRoja(train_size=300, dev_size=11, test_size=11)
    for split in ("train", "dev", "test"):
        pairs = list(corpus.pairs(split))
        for side, suffix in (("source", "en"), ("target", "de")):
            text = "".join(f"{getattr(pair, side)}\n" for pair in pairs)
            (folder / f"{split}.{suffix}").write_text(text, encoding="utf-8")
        rows = "".join(f"{pair.source}\t{pair.target}\n" for pair in pairs)
        (folder / f"{split}.tsv").write_text(rows, encoding="utf-8")
    (folder / "spanish.txt").write_text("la casa roja\n", encoding="utf-8")
    marian_model.write_model(folder / "opus-mt-es-en")
    return folder


def environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    python_path = f"{folder}{os.pathsep}{ROOT}"
    own = {"PATH": path, "PYTHONPATH": python_path, "XDG_CACHE_HOME": str(folder / "cache")}
    return os.environ | own | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def ran(command: list[str], folder: Path, devices: int = 1) -> None:
    process = subprocess.run(
        command,
        cwd=folder,
        env=environment(folder) | {"JAX_NUM_CPU_DEVICES": str(devices)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert process.returncode == 0, f"{process.stdout[-2_000:]}\n{process.stderr[-4_000:]}"


def each_page() -> Iterator:
    for page in PAGES:  # the other families are trained by tests of their own
        mark = pytest.mark.long if page.stem == "other_families" else pytest.mark.slow
        yield pytest.param(page, id=page.stem, marks=mark)


@pytest.mark.parametrize("page", list(each_page()))
def test_the_blocks_of_a_page_run(page: Path, folder: Path) -> None:
    for run in (folder / "runs").iterdir():  # another page's, of the same name perhaps
        if run.name != "casa_roja":
            shutil.rmtree(run)
    script = ["set -euo pipefail", *(f"{name}() {{ :; }}" for name in ABSENT)]
    script.append(
        f"transformer() {{ case $1 in {'|'.join(LONG)}) command transformer $1 --help >/dev/null;;"
        ' *) command transformer "$@";; esac; }'
    )
    program: list[str] = []
    for number, (language, content) in enumerate(blocks(page)):
        named = re.match(r"# file: (\S+)\n", content)
        if language == "python" and named:
            (folder / named[1]).write_text(content, encoding="utf-8")
        elif language == "python":
            program.append(content)
        elif language == "sh":
            if program:  # what comes after may read what it wrote
                script.append(python_of(program, folder, f"{page.stem}_{number}"))
                program = []
            script.append(content)
    if program:
        script.append(python_of(program, folder, f"{page.stem}_end"))
    if len(script) > len(ABSENT) + 2:
        ran(["bash", "-c", "\n".join(script)], folder, devices=4 if page.stem == "attention" else 1)


def python_of(program: list[str], folder: Path, name: str) -> str:
    """A command that runs these blocks as one program."""
    path = folder / f"{name}.py"
    path.write_text("\n".join(program), encoding="utf-8")
    return f"python {path}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("docs/examples/*.py")), ids=lambda path: path.stem
)
def test_a_notebook_runs(path: Path, folder: Path) -> None:
    ran([sys.executable, str(path)], folder)
