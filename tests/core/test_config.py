"""Settings: what cannot be meant is refused, and every setting has its sentence and its flag."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest

import train
from app.core.atomic_files import write_json
from app.core.config import (
    AUTO_SIZE,
    STAGE_RANGES,
    STAGES,
    Stage,
    TrainConfig,
    config_values,
    help_of,
)
from app.core.errors import UsageError
from app.core.ray_workers import RayCluster

FIELDS = [field.name for field in dataclasses.fields(TrainConfig)]

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"stages": ()}, r"stages out of head, block5, block4; received none"),
    ({"stages": ("",)}, r"received none"),
    ({"stages": ("head", "block3")}, r"received head, block3; .* --stages head,block5"),
    ({"stages": ("block5", "head")}, r"from the top downwards .*received block5, head"),
    ({"stages": ("head", "head")}, r"each once; received head, head"),
    ({"stages": ("block5",)}, r"head as the first stage.*received block5"),
    ({"views": 0}, r"--views between 1 and 1000; received 0"),
    ({"views": 1001}, r"--views .*received 1001"),
    ({"image_size": 31}, r"--image-size between 32 and 1024; received 31"),
    ({"image_size": 1025}, r"--image-size .*received 1025"),
    ({"seed": -1}, r"--seed between 0 and 4294967295; received -1"),
    ({"seed": 2**32}, r"--seed .*received 4294967296"),
    ({"epochs": 0}, r"--epochs between 1 and 100000; received 0"),
    ({"epochs": 100_001}, r"--epochs .*received 100001"),
    ({"patience": -1}, r"--patience between 0 and 100000; received -1"),
    ({"budget": 0.0}, r"--budget above 0 minutes; received 0.0"),
    ({"budget": float("nan")}, r"--budget .*received nan"),
    ({"head_strength": 0.0}, r"--head-strength above 0; received 0.0"),
    ({"head_strength": float("inf")}, r"--head-strength .*received inf"),
    ({"precision": "int8", "cache": "off"}, r"--cache off.*received int8"),
    ({"ray": "local", "cache": "off"}, r"--ray with --cache disk or auto.*received --cache off"),
    ({"workers": 0}, r"--workers between 1 and 100000; received 0"),
    ({"worker_cpus": 0}, r"--worker-cpus .*received 0"),
    ({"worker_gpus": 2}, r"--worker-gpus between 0 and 1; received 2"),
    ({"workers": 2}, r"--ray beside --workers.*received none"),
    ({"worker_cpus": 2}, r"--ray beside .*received none"),
    ({"worker_gpus": 1}, r"--ray beside .*received none"),
    ({"cache_limit": 0.0}, r"--cache-limit above 0 GB; received 0.0"),
    ({"cache_limit": float("nan")}, r"--cache-limit .*received nan"),
    ({"cache_limit": float("inf")}, r"--cache-limit .*received inf"),
    ({"log": "mlflow,wandb"}, r"--log to be none or .*received mlflow,wandb"),
    ({"log": "mlflow,mlflow"}, r"each once; received mlflow,mlflow"),
    ({"log": ""}, r"--log .*received ;"),
    ({"export": "savedmodel,onnx"}, r"--export .*received savedmodel,onnx"),
    ({"run": ""}, r"--run to be a plain folder name; received ''"),
    ({"run": "a/b"}, r"--run to be a plain folder name; received 'a/b'"),
    ({"run": "/tmp"}, r"--run .*received '/tmp'"),
    ({"run": ".."}, r"--run .*received '\.\.'"),
    ({"run": ".hidden"}, r"--run .*received '\.hidden'"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_what_cannot_be_meant_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        TrainConfig(**values)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(TrainConfig(), **values)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"stages": ("head",)},
        {"stages": ("head", "block4")},
        {"stages": tuple(STAGES)},
        {"views": 1, "image_size": 32, "seed": 0, "epochs": 1},
        {"views": 1000, "image_size": 1024, "seed": 2**32 - 1, "epochs": 100_000},
        {"run": "2024-05-06 first try"},
    ],
)
def test_what_can_be_meant_is_taken(values: dict[str, Any]) -> None:
    config = TrainConfig(**values)
    assert {name: getattr(config, name) for name in values} == values


def test_settings_do_not_change_in_mid_run() -> None:
    for config in (TrainConfig(), Stage()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize("config", [TrainConfig, Stage])
def test_every_field_has_a_sentence(config: type[Any]) -> None:
    for field in dataclasses.fields(config):
        sentence = help_of(config, field.name)
        assert len(sentence.split()) >= 3, field.name
        assert not sentence.endswith("."), field.name  # as argparse's own help texts


def test_stages_are_data() -> None:
    assert [stage.name for stage in STAGES.values()] == list(STAGES)
    assert list(STAGES) == ["head", "block5", "block4"]
    rates = [stage.learning_rate for stage in STAGES.values() if stage.opens]
    assert rates == sorted(rates, reverse=True)  # the deeper the stage, the gentler


def test_epochs_apply_to_every_stage_but_the_solved_one() -> None:
    config = TrainConfig(stages=tuple(STAGES), epochs=7)
    plan = config.stage_plan()
    assert [(s.name, s.epochs) for s in plan] == [("head", 0), ("block5", 7), ("block4", 7)]
    for stage in plan:
        assert dataclasses.replace(stage, epochs=STAGES[stage.name].epochs) == STAGES[stage.name]


def test_without_epochs_the_stages_are_as_they_are() -> None:
    assert TrainConfig(stages=("head", "block4")).stage_plan() == (STAGES["head"], STAGES["block4"])


def test_smoke_is_the_same_run_in_its_smallest_form() -> None:
    config = TrainConfig(data=Path("pets"), run="first", seed=7, stages=tuple(STAGES), views=9)
    small = config.smoke()
    assert (small.image_size, small.views, small.epochs) == (64, 1, 1)
    defaults = {"image_size": config.image_size, "views": 9, "epochs": None}
    assert dataclasses.replace(small, **defaults) == config
    assert [stage.epochs for stage in small.stage_plan()] == [0, 1, 1]


# ---- train.py: argv → TrainConfig ----

# A value other than the default for every field, and how it is said on the command line.
FLAGS: dict[str, tuple[list[str], Any]] = {
    "data": ([], Path("pets")),
    "layout": (["--layout", "flat"], "flat"),
    "labels": (["--labels", "table.csv"], Path("table.csv")),
    "join_case": (["--join-case"], True),
    "neither": (["--neither", "wild"], Path("wild")),
    "exclude": (["--exclude", "list.txt"], Path("list.txt")),
    "exclude_from_test": (["--exclude-from-test"], True),
    "engine": (["--engine", "openvino"], "openvino"),
    "devices": (["--devices", "2"], 2),
    "corrections": (
        ["--corrections", "a.csv", "--corrections", "b.csv"],
        (Path("a.csv"), Path("b.csv")),
    ),
    "runs": (["--runs", "elsewhere"], Path("elsewhere")),
    "run": (["--run", "first"], "first"),
    "stages": (["--stages", "head,block5,block4"], ("head", "block5", "block4")),
    "views": (["--views", "5"], 5),
    "image_size": (["--image-size", "128"], 128),
    "epochs": (["--epochs", "3"], 3),
    "patience": (["--patience", "4"], 4),
    "budget": (["--budget", "2.5"], 2.5),
    "stage_settings": (["--set", "block5.epochs=6"], ("block5.epochs=6",)),
    "seed": (["--seed", "11"], 11),
    "weights": (["--weights", "none"], "none"),
    "backbone": (["--backbone", "vgg19"], "vgg19"),
    "precision": (["--precision", "float32"], "float32"),
    "cache": (["--cache", "off"], "off"),
    "cache_limit": (["--cache-limit", "2.5"], 2.5),
    "mirror": (["--mirror"], True),
    "head_strength": (["--head-strength", "0.25"], 0.25),
    "deterministic": (["--deterministic"], True),
    "ray": (["--ray", "local"], "local"),
    "workers": (["--workers", "3"], 3),
    "worker_cpus": (["--worker-cpus", "2"], 2),
    "worker_gpus": (["--worker-gpus", "1"], 1),
    "report": (["--no-report"], False),
    "log": (["--log", "tensorboard,mlflow"], "tensorboard,mlflow"),
    "export": (["--export", "savedmodel,litert"], "savedmodel,litert"),
}


def test_without_flags_the_defaults_stand() -> None:
    assert train.parse(["--data", "pets"]) == TrainConfig(data=Path("pets"))


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_reached_by_a_flag(name: str) -> None:
    argv, value = FLAGS[name]
    assert value != getattr(TrainConfig(), name)
    values = {name: value}
    if name.startswith("worker"):  # which says something of Ray's
        argv, values = [*argv, "--ray", "local"], {**values, "ray": "local"}
    expected = dataclasses.replace(TrainConfig(data=Path("pets")), **values)
    assert train.parse(["--data", "pets", *argv]) == expected


def test_epochs_on_the_command_line_reach_the_stages() -> None:
    plan = train.parse(["--data", "pets", "--epochs", "2"]).stage_plan()
    assert [stage.epochs for stage in plan] == [0, 2]


def test_the_image_size_is_auto_or_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.parse(["--data", "pets"]).image_size == AUTO_SIZE
    assert (
        train.parse(["--data", "pets", "--smoke", "--image-size", "auto"]).image_size == AUTO_SIZE
    )
    for wrong in ("0", "large", "128.5"):
        with pytest.raises(SystemExit):
            train.parse(["--data", "pets", "--image-size", wrong])
        assert f"'{wrong}'" in capsys.readouterr().err


def test_smoke_on_the_command_line() -> None:
    argv = ["--data", "pets", "--seed", "3"]
    assert train.parse([*argv, "--smoke"]) == train.parse(argv).smoke()


def test_smoke_overrides_no_flag() -> None:
    config = train.parse(
        ["--data", "pets", "--smoke", "--image-size", "128", "--epochs", "3", "--views", "2"]
    )
    assert (config.image_size, config.epochs, config.views) == (128, 3, 2)
    small = train.parse(["--data", "pets", "--smoke", "--set", "block5.epochs=4"])
    assert (small.image_size, small.stage_plan()[1].epochs) == (64, 4)


@pytest.mark.parametrize("name", STAGE_RANGES)
def test_each_setting_of_a_stage_can_be_given(name: str) -> None:
    head, block5 = TrainConfig().stage_plan()
    value = 7 if isinstance(getattr(Stage, name), int) else 0.5
    config = train.parse(["--data", "pets", "--epochs", "2", "--set", f"block5.{name}={value}"])
    assert config.stage_plan() == (head, dataclasses.replace(block5, **{name: value}))


def test_the_patience_of_the_solved_head_can_be_given() -> None:
    head, block5 = TrainConfig().stage_plan()
    config = train.parse(["--data", "pets", "--set", "head.patience=9"])
    assert config.stage_plan() == (dataclasses.replace(head, patience=9), block5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("head.epochs=3", r"out of patience; received head\.epochs=3; .*--head-strength"),
        ("block4.epochs=3", r"of this run \(head, block5\); received block4.*--stages"),
        ("epochs=3", r"of this run .*received epochs=3"),
        ("block5.rate=1", r"out of epochs, patience, learning_rate, .*received block5\.rate=1"),
        ("block5", r"out of epochs, .*received block5"),
        ("block5.epochs=1.5", r"--set block5\.epochs to be a whole number; received '1\.5'"),
        ("block5.learning_rate=", r"to be a number; received ''"),
        ("block5.epochs=0", r"epochs of stage block5 between 1 and 100000; received 0"),
        ("block5.learning_rate=nan", r"between 0 and 1; received nan"),
        ("block5.batch_size=0", r"between 1 and 100000; received 0"),
    ],
)
def test_a_wrong_setting_of_a_stage_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        train.parse(["--data", "pets", "--set", text])
    assert "\n" not in str(caught.value)


def test_flags_count_more_than_the_files_stages(tmp_path: Path) -> None:
    given = ["--set", "block5.epochs=6", "--set", "block5.learning_rate=3e-5"]
    path = tmp_path / "config.json"
    write_json(config_values(train.parse(["--data", "pets", *given])), path)
    argv = ["--config", str(path)]
    assert train.parse(argv).stage_plan()[1].epochs == 6
    again = train.parse([*argv, "--set", "block5.learning_rate=2e-5"]).stage_plan()[1]
    assert (again.epochs, again.learning_rate) == (6, 2e-5)
    assert train.parse([*argv, "--epochs", "3"]).stage_plan()[1].epochs == 3
    assert train.parse([*argv, "--smoke"]).stage_plan()[1].epochs == 1
    assert len(train.parse([*argv, "--stages", "head"]).stage_plan()) == 1


def test_where_features_are_computed_is_not_kept(tmp_path: Path) -> None:
    here = ["--ray", "10.0.0.5:6379", "--workers", "3", "--worker-cpus", "2"]
    config = train.parse(["--data", "pets", *here])
    assert config.cluster() == RayCluster("10.0.0.5:6379", workers=3, cpus=2, gpus=0)
    path = tmp_path / "config.json"
    write_json(config_values(config), path)
    assert "6379" not in path.read_text()
    assert train.parse(["--config", str(path)]).cluster() is None
    train.refuse_beside_resume({"resume": tmp_path, "ray": "local", "workers": 3})
    write_json({**config_values(config), "ray": "local"}, path)
    with pytest.raises(UsageError, match=r"without ray; .*take the line out"):
        train.parse(["--config", str(path)])


@pytest.mark.parametrize(("values", "message"), [r for r in REFUSED if "run" not in r[0]])
def test_the_command_line_refuses_the_same(values: dict[str, Any], message: str) -> None:
    texts = {k: ",".join(v) if isinstance(v, tuple) else str(v) for k, v in values.items()}
    flags = [f"--{name.replace('_', '-')}={text}" for name, text in texts.items()]
    with pytest.raises(UsageError, match=message):
        train.parse(["--data", "pets", *flags])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "required: --data"),
        (["--data", "pets", "--views", "two"], "invalid int value: 'two'"),
        (["--data", "pets", "--backbone", "resnet"], "invalid choice: 'resnet'"),
        (["--data", "pets", "--cache", "yes"], "invalid choice: 'yes'"),
        (["--data", "pets", "--colour"], "unrecognized arguments: --colour"),
        (["pets"], "required: --data"),
    ],
)
def test_typing_mistakes(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        train.parse(argv)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def help_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setenv("COLUMNS", "10000")  # else sentences are broken into lines
    with pytest.raises(SystemExit) as caught:
        train.parse(["--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", FIELDS)
def test_help_says_the_sentence_of_every_field(name: str, help_text: str) -> None:
    beginning = " ".join(help_of(TrainConfig, name).split()[:2])
    assert beginning in help_text
    if name != "report":  # whose flag says the opposite
        assert help_of(TrainConfig, name) in help_text


def test_help_shows_the_defaults_and_names_smokes_numbers(help_text: str) -> None:
    assert "(default: head,block5)" in help_text
    small = TrainConfig().smoke()
    assert f"{small.image_size} pixels, {small.views} view, {small.epochs} epoch" in help_text
    assert inspect.cleandoc(train.EPILOG).splitlines()[0] in help_text
