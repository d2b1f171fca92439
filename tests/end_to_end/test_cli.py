"""The command line as its users meet it: what they get, and what they are told."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sentencepiece import sentencepiece_model_pb2

from experiments.benchmarks.start import FIRST_STEP, PROGRAMS
from tests.support.processes import ROOT, TINY, error_line, run
from transformer.__main__ import main
from transformer.attention.verify import USES
from transformer.attention.verify_report import CASES

pytestmark = pytest.mark.optax
QUICK = (
    "--config.training.steps=2",
    "--config.training.eval_every=0",
    "--config.training.log_every=1",
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained(cache: Path) -> Path:
    """A run that has taken two steps: what evaluation and translation need."""
    workdir = cache / "run"
    code, _, errors = run("train", TINY, f"--workdir={workdir}", *QUICK, cache=cache)
    assert code == 0, errors
    return workdir


@pytest.fixture
def refused(capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Runs a command in this process and gives the one line that it fails with."""

    def call(*arguments: object) -> str:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        assert caught.value.code == 1
        return error_line(capsys.readouterr().err)

    return call


def text_config(folder: Path, **files: bytes) -> list[str]:
    """A config's arguments for parallel files of these contents; written into a folder."""
    contents = {
        "train_source": b"uno dos tres\n" * 40,
        "train_target": b"one two three\n" * 40,
        "dev_source": b"uno\n",
        "dev_target": b"one\n",
        **files,
    }
    arguments = ["--config.data.source=text", *QUICK]
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        arguments.append(f"--config.data.text.{name}={folder / name}")
    return arguments


def test_help_is_worth_reading_and_quick() -> None:
    """No command's help loads JAX or Flax."""
    for command in ([], ["train"], ["evaluate"], ["translate"], ["attention"], ["params"]):
        code = f"import sys; sys.argv[1:] = {[*command, '--help']}\n" + (
            "from transformer.__main__ import main\n"
            "try: main()\n"
            "except SystemExit as exit: assert exit.code == 0\n"
            "assert not {'jax', 'flax', 'orbax', 'tensorflow_datasets'} & set(sys.modules)"
        )
        shown = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
        )
        assert shown.returncode == 0, shown.stderr
        assert "usage: transformer" in shown.stdout
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "transformer", "--help"], cwd=ROOT, capture_output=True)
    assert time.perf_counter() - began < 5.0  # 0.1 s on an idle machine


@pytest.mark.slow
def test_a_second_run_compiles_nothing(trained: Path, cache: Path) -> None:
    """Initial parameters, the step and the digests: no more, and all kept, like the corpus."""
    code, _, errors = run("train", TINY, f"--workdir={cache}/again", *QUICK, cache=cache)
    assert code == 0, errors
    counted = PROGRAMS.search(errors)
    assert counted and counted.groups()[:2] == ("0", "3"), errors
    assert "tokenised" not in errors and FIRST_STEP.search(errors)
    assert "% waiting for data" in errors


def test_a_translation_takes_two_programs(trained: Path, cache: Path, tmp_path: Path) -> None:
    """The digests of the parameters, and the search."""
    (tmp_path / "input").write_text("la casa")
    with (tmp_path / "input").open() as stdin:
        code, _, errors = run("translate", f"--workdir={trained}", cache=cache, stdin=stdin)
    counted = PROGRAMS.search(errors)
    assert code == 0 and counted, errors
    assert sum(map(int, counted.groups()[:2])) == 2


def test_params_counts_without_building(cache: Path) -> None:
    base = f"--config={ROOT}/experiments/base.py"
    code, output, errors = run("params", base, "--json", cache=cache)
    assert code == 0, errors
    counted = json.loads(output)
    assert counted["layers"] == 44_101_632
    assert counted["total"] == 44_101_632 + 37_000 * 512
    code, output, _ = run("params", base, cache=cache)
    assert "44,101,632" in output


def test_evaluate_writes_scores_and_translations(trained: Path, cache: Path) -> None:
    code, output, errors = run(
        "evaluate", f"--workdir={trained}", "--json", "--beam=2", cache=cache
    )
    assert code == 0, errors
    scores = json.loads(output)
    assert scores["sentences"] == 11
    assert "tok:13a" in scores["bleu_signature"] and scores["perplexity"] > 1.0
    assert scores["word_for_word"]["bleu"] > scores["bleu"]
    assert json.loads((trained / "evaluation.test.json").read_text()) == scores
    assert len((trained / "translations.test.txt").read_text().splitlines()) == 11


def test_translate_gives_a_line_for_a_line(trained: Path, cache: Path, tmp_path: Path) -> None:
    text = tmp_path / "input"
    text.write_bytes("la casa\n\n  \nel libro rojo de la niña\nel perro".encode())
    with text.open() as stdin:
        arguments = ("translate", f"--workdir={trained}", "--beam=2", "--chunk=2")
        code, output, errors = run(*arguments, cache=cache, stdin=stdin)
    assert code == 0, errors
    lines = output.split("\n")
    assert len(lines) == 6 and lines[5] == ""
    assert lines[1] == "" and lines[2] == ""


def test_attention_draws_a_matrix_and_a_picture(trained: Path, cache: Path) -> None:
    arguments = ("attention", f"--workdir={trained}", "la casa roja", "--translation=the red house")
    code, output, errors = run(*arguments, cache=cache)
    assert code == 0, errors
    assert all(word in output for word in ("la", "casa", "roja", "the", "red", "house"))
    assert (trained / "attention.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train_target": b"one\n" * 39}, "39"),
        ({"train_target": b"caf\xe9\n" * 40}, "none of 40 training pairs is left (40 not UTF-8)"),
        ({"train_source": b"", "train_target": b""}, "no sentence pairs"),
    ],
    ids=["lengths", "nothing is left", "an empty file"],
)
def test_text_that_cannot_be_trained_on_is_refused(
    files: dict, message: str, refused: Callable, tmp_path: Path
) -> None:
    arguments = text_config(tmp_path, **files)
    assert message in refused("train", TINY, f"--workdir={tmp_path}/run", *arguments)


@pytest.mark.slow
def test_ones_own_files_need_no_code(cache: Path, tmp_path: Path) -> None:
    """Two dirty text files named on the command line; what was left out is listed."""
    sources = [b"uno dos %d\n" % number for number in range(40)]
    sources[3], sources[39] = b"\xff\n", b" \n"
    targets = [b"one two %d\n" % number for number in range(40)]
    targets[6] = b"\x1b[0mone two\n"
    train = {"train_source": b"".join(sources), "train_target": b"".join(targets)}
    arguments = text_config(tmp_path, **train)
    code, _, errors = run("train", TINY, f"--workdir={tmp_path}/run", *arguments, cache=cache)
    assert code == 0, errors
    report = tmp_path / "run" / "data_report.json"
    line = "left out 2 of 40 training pairs (1 not UTF-8, 1 with an empty side)"
    assert f"{line}: see {report}" in errors
    problems = json.loads(report.read_text())["train"]["problems"]
    assert problems["not_utf8"] == {"count": 1, "left_out": True, "lines": [4]}
    assert problems["empty"] == {"count": 1, "left_out": True, "lines": [40]}
    assert problems["control_characters"] == {"count": 1, "left_out": False, "lines": [7]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config.data.source=text", "--config.data.text.train_source=no.txt"],
            "train_target is empty",
        ),
        (["--config.data.source=txt"], "data.source is 'txt'"),
        (["--config.model.headz=4"], "unknown key 'headz': did you mean 'heads'?"),
        (["--config.mesh.tensor=3"], "asks for 3 devices"),
        (["--config.optimizer.name=adamm"], "did you mean adam"),
        (["--config.model.family=rnnn"], "model.family is 'rnnn'"),
        (["--config.nope=1"], "unknown key 'nope'"),
        (
            ["--config.model.family=lstm", "--config.data.batching=packed"],
            "model.family=lstm takes one sentence a row: set data.batching=buckets",
        ),
        (
            ["--config.model.attention.backend=flash"],
            "no attention backend 'flash'",
        ),
        (["--config.name=../elsewhere"], "leave out slashes"),
        (["--config.mesh.data=1", "--config.mesh.tensor=8"], "size 2, which the mesh axes"),
    ],
)
def test_a_bad_configuration_leaves_nothing_behind(
    arguments: list[str], message: str, refused: Callable, tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    assert message in refused("train", TINY, f"--workdir={workdir}", *arguments)
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def get_config(:", "line 1: "),
        ("import nosuchmodule", "nosuchmodule"),
        ("def get_config(): return 1 / 0", "division by zero"),
        ("def get_config(): return {}", "must return a ConfigDict"),
        ("x = 1", "get_config"),
    ],
)
def test_a_faulty_experiment_file_is_one_line(
    content: str, message: str, refused: Callable, tmp_path: Path
) -> None:
    (tmp_path / "faulty.py").write_text(content)
    line = refused("train", f"--config={tmp_path}/faulty.py", f"--workdir={tmp_path}/run")
    assert message in line and "faulty.py" in line


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "[]", "config.json cannot be read"),
        ("config.json", "{}", "config.json is damaged"),
        ("config.json", "{", "config.json cannot be read"),
        ("tokenizer.model", None, "tokenizer.model is missing"),
        ("tokenizer.model", "none", "tokenizer.model"),
    ],
)
def test_a_damaged_run_is_named(
    name: str, content: str | None, message: str, trained: Path, refused: Callable, tmp_path: Path
) -> None:
    workdir = tmp_path / "damaged"
    shutil.copytree(trained, workdir)
    (workdir / name).unlink()
    if content is not None:
        (workdir / name).write_text(content)
    assert message in refused("translate", f"--workdir={workdir}")


def test_another_tokenizer_is_refused(trained: Path, refused: Callable, tmp_path: Path) -> None:
    """A valid one, even of the same size: the model would be silently wrong."""
    workdir = tmp_path / "changed"
    shutil.copytree(trained, workdir)
    path = workdir / "tokenizer.model"
    model = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())  # pyright: ignore
    model.pieces[-1].piece, model.pieces[-2].piece = model.pieces[-2].piece, model.pieces[-1].piece
    path.write_bytes(model.SerializeToString())
    assert "the tokenizer is not the one" in refused("translate", f"--workdir={workdir}")


def test_no_network_for_a_public_corpus(refused: Callable, tmp_path: Path) -> None:
    """Where a download cannot be, the line says how to prepare the data elsewhere."""
    arguments = ("--config.data.source=tfds", f"--config.data.tfds.data_dir={tmp_path}/data")
    environment = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environment.items():
            patch.setenv(key, value)
        line = refused("train", TINY, f"--workdir={tmp_path}/run", *arguments)
    assert "download_and_prepare" in line and "data_dir" in line


def test_a_missing_file_is_named(refused: Callable, tmp_path: Path) -> None:
    arguments = text_config(tmp_path)
    (tmp_path / "train_target").unlink()
    line = refused("train", TINY, f"--workdir={tmp_path}/run", *arguments)
    assert str(tmp_path / "train_target") in line


def test_a_bad_line_costs_itself_and_is_told_of_at_the_end(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """Not text, too long for the model, too long to be read: an empty line, exit code 0 or 1."""

    def translate(content: bytes, *options: str) -> tuple[int, list[str], str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        with pytest.raises(SystemExit) as caught:
            main(["translate", f"--workdir={trained}", "--chunk=2", *options])
        output, errors = capfd.readouterr()
        return int(caught.value.code or 0), output.split("\n")[:-1], errors

    code, expected, errors = translate(b"la casa\nel perro", "--beam=1")
    assert code == 0 and len(expected) == 2 and all(expected) and "no translation" not in errors
    bad = [b"d\xff", b"perro " * 70, b"perro" * 20_000]
    content = b"\n".join([b"la casa", *bad, b"el perro"])
    for options, expected_code in ((), 0), (("--strict",), 1):
        code, output, errors = translate(content, "--beam=1", *options)
        assert code == expected_code
        assert output == [expected[0], "", "", "", expected[1]]
        line = error_line(errors)
        assert line.startswith("3 lines have no translation, and empty output: line 2 is not UTF-8")
        assert "line 3 has" in line and "line 4 is longer than 65,536 bytes" in line
    options = ("--beam=2", "--n-best=2", "--scores", "--format=indexed")
    _, output, _ = translate(b"\xff\nla casa", *options)
    columns = [line.split("\t") for line in output]
    assert [row[:2] for row in columns] == [["1", "1"], ["1", "2"], ["2", "1"], ["2", "2"]]
    assert [row[2:] for row in columns[:2]] == [["-inf", ""]] * 2
    assert float(columns[2][2]) >= float(columns[3][2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--beam=0"], "--beam=0: decoding.beam is 0; it must be above 0"),
        (["--alpha=-1"], "--alpha=-1.0: decoding.alpha is -1.0"),
        (["--alpha=nan"], "--alpha=nan: decoding.alpha is nan"),
        (["--n-best=9"], "--n-best=9: decoding.n_best is 9 but a beam of 4"),
        (["--beam=2", "--n-best=3"], "--beam=2 --n-best=3: decoding.n_best is 3 but a beam of 2"),
        (["--weights=int4"], "--weights=int4: decoding.weights is 'int4'; choose one of float"),
    ],
)
def test_an_option_that_cannot_work_is_named(
    options: list[str], message: str, trained: Path, refused: Callable
) -> None:
    line = refused("evaluate", f"--workdir={trained}", *options)
    assert line.startswith(message) and "config.json" not in line


def test_no_run_no_checkpoint_no_such_folder(
    trained: Path, refused: Callable, tmp_path: Path
) -> None:
    assert "holds no run (no config.json)" in refused("translate", f"--workdir={tmp_path}")
    line = refused("evaluate", f"--workdir={trained}", "--checkpoint=77")
    assert "has no checkpoint '77': it has average, last and steps 2" in line
    (tmp_path / "notes.txt").write_text("mine")
    line = refused("train", TINY, f"--workdir={tmp_path}")
    assert "exists and is no run directory" in line


def test_experiments_load_from_any_folder(cache: Path, tmp_path: Path) -> None:
    """The console script, far from the repository, on a config that imports its neighbours."""
    script = Path(sys.executable).with_name("transformer")
    for config in (f"{ROOT}/experiments/casa_roja.py:smoke", TINY.removeprefix("--config=")):
        shown = subprocess.run(
            [script, "params", f"--config={config}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        )
        assert shown.returncode == 0, shown.stderr


@pytest.mark.slow
def test_verify_holds_backends_to_the_reference(cache: Path) -> None:
    arguments = ("verify", TINY, "--backends=chunked,cudnn", "--length=5", "--json")
    code, output, errors = run(*arguments, cache=cache)
    assert code == 0, errors
    cells = json.loads(output)
    assert {(cell["use"], cell["case"]) for cell in cells if cell["backend"] == "chunked"} == {
        (use, case) for use in USES for case in CASES
    }
    for cell in cells:
        if cell["backend"] == "cudnn":
            assert cell["refused"] == "cuDNN runs on NVIDIA GPUs"
        else:
            assert cell["forward"]["highest"] <= 1e-5 and cell["leaks"] == 0
