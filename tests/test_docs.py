"""What the documents say is what the project does."""

import importlib
import json
import re
from functools import cache
from pathlib import Path

import pytest
from photos import make_photo
from served import tiny_bundle

from app.__main__ import COMMANDS
from app.data.sets.fetch import PHOTO_SETS

ROOT = Path(__file__).parent.parent
# The commands, with the module whose ``main`` reads their flags.
SUBCOMMANDS = {name: module for name, (module, _) in COMMANDS.items()}
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("data/*.md")})
# A diary and the records of decisions keep the names of their day; only their links are checked.
HISTORY = {ROOT / "docs" / "experiments.md", *ROOT.glob("docs/decisions/*.md")}
LIVING = [page for page in PAGES if page not in HISTORY]
PACKAGES = {path.parent.name for path in ROOT.glob("app/*/__init__.py")}
README, DESIGN, RESULTS, SETTINGS, SERVING = (
    (ROOT / name).read_text(encoding="utf-8")
    for name in (
        "README.md",
        "docs/design.md",
        "docs/results.md",
        "docs/settings.md",
        "docs/serving.md",
    )
)
COMMAND = re.compile(
    r"(?:^|[\s=])(?:(?P<script>train|predict)\.py|-m app (?P<sub>[\w-]+)"
    r"|-m (?P<module>benchmarks\.[a-z_]+)|cats-vs-dogs (?P<console>[\w-]+))(?P<rest>[^|>]*)"
)
# Words of the field, not of every day: who meets one here finds it in the glossary.
OF_THE_FIELD = (
    *("accuracy", "augmentation", "average precision", "backbone", "brier", "calibration"),
    *("channel", "convolution", "cross-validated", "epoch", "filter"),
    *("fine-tuning", "frozen", "heat map", "imagenet", "int8", "learning rate", "linear probe"),
    *("log-loss", "mcnemar", "near-duplicate", "novelty", "onnx", "out-of-distribution"),
    *("out-of-fold", "overfitting", "precision", "recall", "regularisation", "roc", "seed"),
    *("sigmoid", "softmax", "temperature", "test-time augmentation", "threshold", "wilson"),
    *("transfer learning", "bundle", "engine", "correction", "neither", "unsure", "stage", "split"),
)
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def code_of(text: str) -> list[str]:
    """Return what is code on a page: the lines of its blocks without comments, and inline code."""
    fence = re.compile(r"^```.*?\n(.*?)^```", re.DOTALL | re.MULTILINE)
    lines = [line for block in fence.findall(text) for line in block.splitlines()]
    inline = re.findall(r"`([^`]+)`", fence.sub("", text))
    return [re.sub(r"\s+#\s.*", "", line) for line in lines] + [" ".join(c.split()) for c in inline]


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Return the project's commands on a page, each with the flags that follow it."""
    found = []
    for code in code_of(text):
        for match in COMMAND.finditer(code):
            name = next(filter(None, match.group("script", "sub", "module", "console")))
            own = match["rest"].partition(" -- ")[0]  # what follows a lone -- is train.py's
            found.append((name, FLAG.findall(own)))
    return found


@cache
def flags_of(name: str) -> frozenset[str]:
    """Return the flags that a command's parser knows, from the usage that it prints itself."""
    main = importlib.import_module(SUBCOMMANDS.get(name, name)).main
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr(
            "argparse.ArgumentParser.print_help", lambda p: printed.append(p.format_usage())
        )
        with pytest.raises(SystemExit):
            main(["--help"])
    return frozenset(FLAG.findall(printed[0])) | {"--help"}


def rows_of(page: str, flags: frozenset[str]) -> set[str]:
    """Return which of the flags have a row in one of a page's tables, in its first cell."""
    cells = re.findall(r"^\| ([^|]*`--[^|]*)\|", page, re.MULTILINE)
    return {flag for cell in cells for flag in FLAG.findall(cell)} & flags


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_local_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text)
    for target in map("".join, links):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\s-]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in anchors, target


@pytest.mark.parametrize("page", LIVING, ids=named)
def test_paths_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    inside = "app|tests|docs|benchmarks|notebooks|tools"
    paths = re.findall(rf"(?<![\w/])((?:{inside})/[\w./-]*\w(?:\.\w+|/))(?![\w*])", text)
    paths += [f"tests/{name}" for name in re.findall(r"`((?!tests/)(?:\w+/)*test_\w+\.py)", text)]
    for module in re.findall(r"-m ((?:app|tests|benchmarks)(?:\.[a-z]\w*)+)", text):
        path = module.replace(".", "/")
        paths.append(f"{path}/__main__.py" if (ROOT / path).is_dir() else f"{path}.py")
    if not PACKAGES:  # the documents describe the packages; the files are flat as yet
        paths = [path for path in paths if not path.startswith("app/")]
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", LIVING, ids=named)
def test_commands_and_their_flags_are_known(page):
    text = page.read_text(encoding="utf-8")
    for name, flags in commands(text):
        if name not in SUBCOMMANDS:
            assert (ROOT / f"{name.replace('.', '/')}.py").exists(), name
        assert set(flags) <= flags_of(name), (name, set(flags) - flags_of(name))


@pytest.mark.parametrize("page", LIVING, ids=named)
def test_flags_that_stand_alone_are_known(page):
    known = frozenset().union(*map(flags_of, SUBCOMMANDS))
    code = code_of(page.read_text(encoding="utf-8"))
    flags = {flag for each in code if each.startswith("--") for flag in FLAG.findall(each)}
    assert flags <= known, flags - known


def test_every_flag_is_explained():
    wanted = flags_of("train") | flags_of("predict")
    assert wanted - rows_of(SETTINGS, wanted) == {"--help"}
    shared = flags_of("predict") & flags_of("serve")
    alone = flags_of("serve") - shared
    assert rows_of(SERVING, alone) == alone
    assert all(f"`{flag}`" in SERVING for flag in shared - {"--help"})


def test_the_readme_is_short_and_begins_with_a_prediction():
    lines = README.splitlines()
    assert len(lines) <= 150
    first_screen = "\n".join(lines[:24])
    for needed in (
        "docs/studio.png",
        "pip install",
        "python predict.py",
        r".venv\Scripts\activate",
    ):
        assert needed in first_screen
    assert "make demo" in README
    assert "make test" in README


def test_figures_are_those_of_the_runs():
    """docs/results/ holds the metrics.json of the runs that the tables show."""
    rows = re.findall(
        r"^(\|.*\[(run|answers)\]\((results/[\w.-]+\.json)\).*)$", RESULTS, re.MULTILINE
    )
    assert [kind for _, kind, _ in rows] == ["answers", "answers", "run", "run"]
    for line, kind, source in rows:
        test = json.loads((ROOT / "docs" / source).read_text(encoding="utf-8"))["test"]
        if kind == "run":
            assert accuracy(test) in line
            assert f"{test['log_loss']:.4f}" in line
            assert f"{test['ece']:.4f}" in line
        else:
            n, answers = test["n"], test["counts"]
            shown = [f"{answers[key]:,} ({answers[key] / n:.2%})" for key in ("right", "wrong")]
            shown.append(f"{answers['neither']} ({answers['neither'] / n:.2%})")
            assert f"| {' | '.join(shown)} | {answers['unsure']} |".replace("%", " %") in line


def test_the_readme_has_both_accuracies_of_the_default_run():
    test = json.loads((ROOT / "docs/results/small.json").read_text(encoding="utf-8"))["test"]
    labels = {"right": "the right class", "wrong": "the wrong class"}
    for key, count in test["counts"].items():
        label, share = labels.get(key, f"`{key}`"), f"{100 * count / test['n']:.4g}"
        assert f"| {label} | {count:,} | {share} % |" in README
    assert accuracy(test) in README.replace("95 % interval ", "").replace("accuracy*, ", "")
    assert f"{round(test['accuracy'] * test['n']):,} of the {test['n']:,}" in README


def accuracy(test: dict) -> str:
    low, high = test["accuracy_interval_95"]
    return f"{test['accuracy']:.4f} ({low:.4f}–{high:.4f})"


def test_the_data_page_names_each_set_with_its_digest():
    page = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for photo_set in PHOTO_SETS.values():
        assert f"{photo_set.size:,}" in page
        assert photo_set.sha256 is None or photo_set.sha256 in page


def test_every_package_has_its_row():
    for page in (DESIGN, (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        rows = set(re.findall(r"^\| `app/(\w+)/` \|", page, re.MULTILINE))
        assert rows == PACKAGES


def glossary() -> dict[str, str]:
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| (?!word)([^|]+) \| ([^|]+) \|$", page, re.MULTILINE))


def test_the_glossary_is_in_order_and_a_line_each():
    terms = list(glossary())
    assert terms == sorted(terms, key=str.lower)
    assert all(meaning.endswith((".", ".)")) for meaning in glossary().values())


def test_what_the_glossary_explains_is_used():
    words = words_shown()
    assert [term for term in glossary() if not re.search(inflected(term), words)] == []


def test_what_readers_may_not_know_is_explained():
    """Words of the field that the pages, the report and the lessons use."""
    words = words_shown()
    used = [word for word in OF_THE_FIELD if re.search(inflected(word), words)]
    explained = " ".join(f"{term} {meaning}" for term, meaning in glossary().items())
    assert len(used) > len(OF_THE_FIELD) / 2, "the list is out of date"
    assert [word for word in used if not re.search(inflected(word), explained.lower())] == []


def words_shown() -> str:
    """Return what readers are told: living pages, templates of the report, lessons."""
    lessons = [*ROOT.glob("notebooks/[0-9]*.py"), *ROOT.glob("app/report/templates/*.j2")]
    pages = [page for page in LIVING if page.name != "glossary.md"] + lessons
    texts = (page.read_text(encoding="utf-8") for page in pages)
    return " ".join(" ".join(texts).replace("#", " ").lower().split())


def inflected(term: str) -> str:
    """Return a pattern of a term in singular and plural, with hyphens or without."""
    return rf"\b{re.escape(term.lower()).replace(chr(92) + '-', '[- ]')}(s|es)?\b"


def test_the_python_of_the_documents_runs(tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs" / "using.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "runs/first").mkdir(parents=True)
    tiny_bundle(tmp_path / "runs/first/bundle")
    make_photo(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "docs/using.md", "exec"), {})
    assert re.match(r"\w+ \{'cat': \d.*\} \d", capsys.readouterr().out)
