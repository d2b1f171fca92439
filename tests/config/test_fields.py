"""Configurations: what is refused, with which words; what a run's name depends on."""

import ast
import dataclasses
import itertools
import math
import re
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments import base
from tests.support.processes import EXPERIMENTS
from transformer.config import Config, ModelConfig, TrainingConfig, from_dict, override
from transformer.config.experiment_files import load_config
from transformer.config.renamed import with_new_names
from transformer.errors import UserError
from transformer.models import build_model
from transformer.training.optimizers import build_optimizer, build_schedule

FOLDER = Path(base.__file__).parent


def tree(**changes) -> dict:
    """base.py's keys as nested dicts, with some changed: tree(model={"heads": 3})."""
    result = base.get_config().to_dict()
    for section, keys in changes.items():
        result[section].update(keys)
    return result


def test_base_is_the_papers_base_model() -> None:
    config = from_dict(tree())
    assert (config.model.d_model, config.model.d_ff, config.model.heads) == (512, 2048, 8)
    assert config.optimizer.options == {"b1": 0.9, "b2": 0.98, "eps": 1e-9}
    assert (config.decoding.beam, config.decoding.alpha, config.decoding.extra_length) == (
        4,
        0.6,
        50,
    )
    assert config.model.vocab_size == config.data.tokenizer.vocab_size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"norm": "none"}}, r"model.norm is 'none'; choose one of post, pre"),
        ({"model": {"heads": 0}}, r"model.heads is 0; it must be above 0"),
        ({"training": {"z_loss": math.inf}}, r"training.z_loss is inf; it must be .*, and finite"),
        ({"model": {"norm_epsilon": math.inf}}, r"model.norm_epsilon is inf; .*, and finite"),
        ({"model": {"d_model": 10**8}}, r"model.d_model is 100000000; it must be at most"),
        ({"model": {"encoder_layers": 10**7}}, r"model.encoder_layers is .* at most 10,000"),
        ({"model": {"dropout": 1.0}}, r"model.dropout is 1.0; it must be at least 0 and below 1"),
        ({"model": {"d_model": 511}}, r"model.d_model is 511; .* take 512"),
        ({"model": {"heads": 2.5}}, r"config.model.heads is 2.5, a float; it must be int"),
        ({"model": {"unroll": 1}}, r"config.model.unroll is 1, a int; it must be bool"),
        (
            {"model": {"head": 8}},
            r"unknown key config.model.head: did you mean config.model.heads?",
        ),
        ({"data": {"tokens_per_batch": 100}}, r"data.tokens_per_batch is 100, .* at least 2048"),
        ({"data": {"max_length": 100}}, r"data.max_length is 100, no multiple .* take 104"),
        ({"data": {"tokenizer": 3}}, r"config.data.tokenizer is 3; it must be a section of keys"),
        ({"training": {"accumulate": 3}}, r"training.accumulate is 3, which does not divide"),
        ({"decoding": {"n_best": 5}}, r"decoding.n_best is 5 but a beam of 4 gives no more"),
        ({"checkpoints": {"average": 9}}, r"checkpoints.average is 9 but only keep_last = 5"),
        (
            {"early_stopping": {"metric": "bleu"}},
            r"nothing computes it: set training.eval_bleu=True",
        ),
        ({"mesh": {"tensor": 0}}, r"mesh.tensor is 0; give a number, or -1"),
    ],
)
def test_bad_values_are_refused_with_a_reason(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dict(tree(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kv_heads": 3}, r"model.kv_heads is 3, which does not divide model.heads = 8"),
        ({"kv_heads": -1}, r"model.kv_heads is -1; it must be 0 or above"),
        ({"layer_drop": 1.0}, r"model.layer_drop is 1.0; it must be at least 0 and below 1"),
        ({"norm_function": "batch"}, r"model.norm_function is 'batch'; choose one of layer_norm"),
        ({"feed_forward": "tanh"}, r"model.feed_forward is 'tanh'; choose one of relu, gelu"),
        ({"remat": "some"}, r"model.remat is 'some'; choose one of none, full, dots_saveable"),
        ({"initializer": "zeros"}, r"model.initializer is 'zeros'; choose one of xavier_uniform"),
        ({"base_d_model": 0}, r"model.base_d_model is 0; it must be above 0"),
        ({"scheme": "absolute"}, r"model.positions.scheme is 'absolute'; choose one of sinusoidal"),
        ({"scheme": "rotary", "d_k": 63}, r"model.d_k is 63; rotary positions turn pairs: take 64"),
        ({"t5_buckets": 30}, r"model.positions.t5_buckets is 30; .* take a multiple of 4"),
        ({"t5_max_distance": 16}, r"model.positions.t5_max_distance is 16, not above the 16"),
        ({"shaw_clip": 0}, r"model.positions.shaw_clip is 0; it must be above 0"),
        (
            {"scheme": "learned", "length": 200},
            r"data.max_length is 256 but model.positions.length = 200 learns no more",
        ),
        (  # the target behind the source
            {"scheme": "learned", "family": "decoder"},
            r"length = 306 learns no more positions, of 512 that",
        ),
        (  # "[CLS]" before the source
            {"scheme": "learned", "length": 256, "family": "encoder", "readout": "class"},
            r"length = 256 learns no more positions, of 257 that",
        ),
    ],
)
def test_options_that_cannot_work_are_refused_with_a_reason(changes: dict, message: str) -> None:
    config = base.get_config().model.to_dict()
    of_positions = {key: changes[key] for key in changes if key in config["positions"]}
    model = {key: changes[key] for key in changes if key not in of_positions}
    with pytest.raises(UserError, match=message):
        from_dict(tree(model={**model, "positions": {**config["positions"], **of_positions}}))


def test_mup_wants_an_optimizer_like_adam() -> None:
    mup = {"width_scaling": "mup"}
    from_dict(tree(model=mup, optimizer={"name": "adamw"}))
    with pytest.raises(UserError, match=r"optimizer.name is 'sgd': choose one of adam, adamw"):
        from_dict(tree(model=mup, optimizer={"name": "sgd", "options": {}}))


@pytest.mark.parametrize(
    "changes", [{"norm": "pre"}, {"kv_heads": 2}, {"feed_forward": "geglu"}, {"scheme": "rotary"}]
)
def test_recurrent_families_refuse_what_they_do_not_heed(changes: dict) -> None:
    config = from_dict(tree(model={"family": "gru"})).model
    build_model(config)
    (key, value), *_ = changes.items()
    if key == "scheme":
        key = "positions.scheme"
        config = dataclasses.replace(
            config, positions=dataclasses.replace(config.positions, scheme=value)
        )
    else:
        config = dataclasses.replace(config, **changes)
    with pytest.raises(
        UserError, match=rf"model.family=gru has .* leave model.{key} at its default"
    ):
        build_model(config)


def test_a_key_that_is_not_given_has_its_default() -> None:
    """So has one that came after a run: its config.json stays good, and its name the same."""
    config = from_dict({"model": {"d_model": 32}, "data": {"tokenizer": {"vocab_size": 400}}})
    assert config.model == ModelConfig(d_model=32, vocab_size=400)
    assert config.training == TrainingConfig()
    older = config.as_dict()
    del older["evaluation"], older["model"]["qk_norm"]
    assert from_dict(older) == config and from_dict(older).digest() == config.digest()


def test_a_key_that_changed_its_name_says_the_new_one() -> None:
    with pytest.raises(UserError, match=r"divergence.pass_over is called .*skip_batches now"):
        from_dict({"divergence": {"pass_over": 2}})
    old = {"divergence": {"pass_over": 2, "at_most": 3, "action": "go_back"}}
    divergence = from_dict(with_new_names(old)).divergence
    assert (divergence.skip_batches, divergence.max_times, divergence.action) == (2, 3, "rollback")


def keys(kind: Any, path: str = "") -> Iterator[tuple[str, str, bool]]:
    """Every key below a section, the class that declares it, and whether it has a default."""
    kinds = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        inner = kinds[field.name]
        if dataclasses.is_dataclass(inner):
            yield from keys(inner, f"{path}{field.name}.")
        else:
            missing = field.default is field.default_factory is dataclasses.MISSING
            yield path + field.name, kind.__name__, not missing


def test_each_key_is_declared_once_with_its_default() -> None:
    """In `transformer/config`: nowhere else in the package or in base.py is a key given a value."""
    declared = list(keys(Config))
    assert len(declared) > 150 and all(has_default for _, _, has_default in declared)
    lines = Counter[str]()
    for path in (FOLDER.parent / "transformer" / "config").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                fields = (n.target for n in node.body if isinstance(n, ast.AnnAssign))
                lines.update(f"{node.name}.{ast.unparse(target)}" for target in fields)
    assert {lines[f"{kind}.{key.rpartition('.')[2]}"] for key, kind, _ in declared} == {1}
    tree = ast.parse((FOLDER / "base.py").read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def test_each_key_has_a_meaning() -> None:
    """A docstring below its field, but for those that their names say."""
    plain = {"kind", "task", "keep_last", "source_language", "target_language"}
    for path in (FOLDER.parent / "transformer" / "config").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.ClassDef) and node.bases and node.name != "PartConfig"):
                continue
            for field, after in itertools.pairwise([*node.body, None]):
                if not isinstance(field, ast.AnnAssign) or "Config" in ast.unparse(field):
                    continue
                name = ast.unparse(field.target)
                is_split = name.startswith(("train", "dev", "test"))
                has_docstring = isinstance(after, ast.Expr)
                assert has_docstring or is_split or name in plain, f"{node.name}.{name}"


def test_names_are_hashes_of_what_matters() -> None:
    config = from_dict(tree())
    assert from_dict(config.as_dict()) == config
    assert from_dict(tree()).run_name == config.run_name
    assert from_dict(tree(model={"heads": 4})).run_name != config.run_name
    for elsewhere in ({"distributed": {"process": 1}}, {"mesh": {"tensor": 2}}):
        assert from_dict(tree(**elsewhere)).run_name == config.run_name
    assert from_dict({**tree(), "name": "mine"}).run_name == "mine"


def test_overrides_and_variants() -> None:
    config = load_config(f"{FOLDER}/casa_roja.py:smoke", ["--config.model.heads=2"])
    assert config.model.heads == 2
    assert config.model.d_model == 32


@pytest.mark.parametrize(
    ("argument", "overrides", "message"),
    [
        ("nowhere.py", [], r"there is no file nowhere.py"),
        ("casa_roja.py:big", [], r"unknown variant 'big': this experiment has smoke"),
        ("casa_roja.py", ["--config.model.headz=2"], r"unknown key 'headz': did you mean 'heads'?"),
        ("casa_roja.py", ["--config.model.heads=two"], r"heads=two: it must be a whole number"),
        ("casa_roja.py", ["--beam=2"], r"beam"),
        ("casa_roja.py", ["stray"], r"'stray' is no option"),
    ],
)
def test_bad_arguments_are_one_line(argument: str, overrides: list[str], message: str) -> None:
    path = argument if argument.startswith("nowhere") else f"{FOLDER}/{argument}"
    with pytest.raises(UserError, match=message) as caught:
        load_config(path, overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("model.heads=1e3", 1_000),
        ("model.heads=1_000", 1_000),
        ("model.heads=8.0", 8),
        ("model.dropout=1", 1.0),
        ("model.unroll=true", True),
        ("model.unroll", True),
        ("name=1e3", "1e3"),
        ("data.text.train_source=a=b", "a=b"),
        ("data.recall.distances=7", (7,)),
        ("data.recall.distances=(1, 2)", (1, 2)),
        ("data.recall.distances=[1,2]", (1, 2)),
        ("data.recall.distances=()", ()),
        ("data.recall.distances=(1e1,2)", (10, 2)),
        ("data.recall.distances=1e2", (100,)),
        ("data.files.patterns=a/*.py,b/**", ("a/*.py", "b/**")),
        ("optimizer.options.weight_decay=0.1", 0.1),
        ("optimizer.options.mu_dtype=bfloat16", "bfloat16"),
        ("optimizer.options.nesterov=True", True),
        ("optimizer.options.b1=1", 1.0),
        ("optimizer.schedule_options.warmup_steps=1e3", 1_000),
        ("optimizer.options={'b1': 0.5}", {"b1": 0.5}),
    ],
)
def test_values_are_read_as_their_key_s_are(change: str, value: object) -> None:
    """Whatever the optimizer takes may be added to its options."""
    config = base.get_config()
    override(config, [f"--config.{change}"])
    key = change.split("=")[0]
    found = config.to_dict()
    for part in key.split("."):
        found = found[part]
    assert (found, type(found)) == (value, type(value))


def test_a_value_may_stand_behind_its_key_and_items_may_come_one_by_one() -> None:
    config = base.get_config()
    override(config, ["--config.seed", "7", "--noconfig.model.scale_embeddings"])
    override(config, [f"--config.data.recall.distances={number}" for number in (5, 6)])
    assert (config.seed, config.model.scale_embeddings) == (7, False)
    assert config.data.recall.distances == (5, 6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["model.heads=1.5"], "heads=1.5: it must be a whole number"),
        (["model.heads="], "heads=: it must be a whole number"),
        (["model.heads=inf"], "it must be a whole number"),
        (["model.heads=1e999999999"], "it must be a whole number"),
        (["model.heads=" + "9" * 5_000], "it must be a whole number"),
        (["model.heads=None"], "it must be a whole number"),
        (["model.heads=(1,2)"], "it must be a whole number"),
        (["model.dropout=a lot"], "dropout=a lot: it must be a number"),
        (["model.dropout="], "it must be a number"),
        (["model.unroll=yes"], "unroll=yes: it must be True or False"),
        (["model.unroll=2"], "it must be True or False"),
        (
            ["model=3"],
            "it is a section: give one of its keys, such as .attention=VALUE, or all of it",
        ),
        (["model="], "it is a section"),
        (["optimizer.options=[1]"], "it is a section"),
        (["optimizer.options={1: 2}"], "it is a section"),
        (["model.heads.x=3"], "config.model.heads is 8, a value without keys below"),
        (["model.headz=3"], "unknown key 'headz': did you mean 'heads'"),
        (["optimiser.options.b1=3"], "unknown key 'optimiser': did you mean 'optimizer'"),
        (["optimizer.options.b1=high"], "it must be a number"),
        (["data.mixture.a.source=text"], "has no 'a' yet: give all of it as a Python dict"),
        (["optimizer.options.a.b=3"], "unknown key 'a'"),
        (["=3"], "no option"),
        ([".=3"], "unknown key ''"),
        (["model..heads=3"], "unknown key ''"),
        (["seed"], "give the key a value"),
        (["model.heads=two\nlines"], "it must be a whole number"),
        (
            ["optimizer.options.b1=0.5", "optimizer.options={'b2': 0.5}"],
            "replaces config.optimizer.options.b1, given before it",
        ),
        (["optimizer.options={'a.b': 1}"], "all of it as a Python dict of names"),
        (["optimizer.options={'a': {'b.c': 1}}"], "all of it as a Python dict of names"),
    ],
)
def test_a_value_that_its_key_cannot_take_is_one_line(changes: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        override(base.get_config(), [f"--config.{change}" for change in changes])
    line = str(caught.value)
    assert "\n" not in line and len(line) < 400
    for of_python in ("literal", "could not convert", "argument", "Error", "absl", "ConfigDict"):
        assert of_python not in line


def test_every_experiment_resolves_with_smoke() -> None:
    assert len(EXPERIMENTS) >= 3
    for path in EXPERIMENTS:
        smoke = load_config(f"{path}:smoke", [])
        ours = {"casa_roja", "recall", "orchard", "files", "agreement", "digits"}
        assert smoke.data.source in ours  # which ship with us
        assert smoke.model.d_model <= 32
        config = load_config(str(path), [])
        build_model(config.model)
        schedule = build_schedule(config.optimizer.schedule, config.optimizer.schedule_options)
        build_optimizer(config.optimizer.name, config.optimizer.options, schedule, 1.0)
