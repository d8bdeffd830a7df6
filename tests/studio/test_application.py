"""The studio over HTTP: who is answered, and what is refused in words."""

import asyncio
import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from photos import make_photo, picture
from PIL import Image
from served import CLASSES, tiny_bundle
from studio_page import client_of, studio_served
from waiting import eventually

from app.core.cli import run
from app.core.run_folder import Run
from app.inference.predictor import Classifier
from app.studio.application import SAMPLES, TABS, TOKEN, Studio, drawn_sample
from app.studio.entry import QUERY
from app.studio.jobs import Jobs
from app.studio.studio import main
from tests.serving.test_serve import bomb

WRITES = ["open", "ask", "why", "similar", "screen", "job/stop", "share"]
WRITES += ["teach/start", "teach/change", "teach/photos/1", "teach/solve", "teach/ask"]
WRITES += ["teach/save", "review", "review/why", "review/decide", "review/undo", "review/preview"]
WRITES += ["review/train"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Return a folder with a run that can answer, and knows nothing else."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "first").mkdir()
    tiny_bundle(folder / "first" / "bundle")
    (folder / "first" / "metrics.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def served_studio(runs, tmp_path_factory) -> Iterator[tuple[str, Studio]]:
    with studio_served(runs, tmp_path_factory.mktemp("data") / "taught", name="first") as both:
        yield both


@pytest.fixture
def client(served_studio) -> Iterator[httpx.Client]:
    with client_of(*served_studio) as client:
        yield client


@pytest.fixture
def photo(tmp_path) -> Path:
    return make_photo(tmp_path / "photo.jpg", 3)


def sent(*paths: Path) -> list:
    return [("photos", (path.name, path.read_bytes())) for path in paths]


# ---- who is answered -----------------------------------------------------------------------------


def test_every_route_that_writes_is_known_here(served_studio):
    paths = {path.replace("{number:int}", "1") for path in served_studio[1].app.routes}
    reads = {"state", "job", "sample/1", "training/1", "review/photo/1", "teach", "teach/photo/1"}
    calls = {path.removeprefix("/api/") for path in paths if path.startswith("/api/")}
    assert calls == {*WRITES, *reads}


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize("token", [None, "", "guess", "é"])
def test_nothing_is_written_without_the_token(client, path, token):
    del client.headers[TOKEN]
    headers = {} if token is None else {TOKEN: token.encode()}
    answer = client.post(f"/api/{path}", json={"name": "x"}, headers=headers)
    assert answer.status_code == 403
    assert "the token of this page" in answer.json()["error"]
    assert client.get(f"/api/{path}").status_code in (404, 405)


@pytest.mark.parametrize("path", ["/ask", "/api/state", "/api/teach/change", "/page/ask.js"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:1"}, 403),
    ],
)
def test_other_sites_are_refused_even_with_the_token(client, path, headers, status):
    method = "POST" if "change" in path else "GET"
    answer = client.request(method, path, headers=headers, json={"what": "add", "name": "x"})
    assert answer.status_code == status


def test_the_token_is_new_each_time_and_stands_in_the_pages_alone(client, served_studio, tmp_path):
    studio = served_studio[1]
    assert Studio(tmp_path, tmp_path, 64).token != studio.token
    for tab in TABS:
        assert studio.token in client.get(f"/{tab}").text
    for path in ("/api/state", "/api/job", "/api/teach", "/page/common.js"):
        assert studio.token not in client.get(path).text


@pytest.mark.parametrize("secret", [None, "", "guess", "é", "the page's"])
def test_another_user_of_this_machine_gets_nothing(served_studio, secret):
    """Whoever has no secret gets no page, and with it no token; nor a script, photo or answer."""
    address, studio = served_studio
    secret = studio.token if secret == "the page's" else secret
    cookie = f"studio-{httpx.URL(address).port}={secret}".encode()
    paths = [path.replace("{number:int}", "1") for path in sorted(studio.app.routes)]
    tries = (
        [{}] if secret is None else [{"params": {QUERY: secret}}, {"headers": {"cookie": cookie}}]
    )
    with httpx.Client(base_url=address, headers={TOKEN: studio.token}) as stranger:
        for path, values in itertools.product(paths, tries):
            answer = stranger.request("POST" if path[5:] in WRITES else "GET", path, **values)
            assert answer.status_code == 403, path
            assert "look for the address in the terminal" in answer.text
            assert len(answer.text.splitlines()) == 1
            assert "set-cookie" not in answer.headers


def test_the_secret_of_the_address_becomes_a_cookie(served_studio):
    address, studio = served_studio
    other = Studio(studio.runs, studio.data, 64)
    assert other.entry.secret not in (studio.entry.secret, other.token)
    answer = httpx.get(studio.entry.link(f"{address}/teach"))
    assert (answer.status_code, answer.headers["location"]) == (303, "/teach")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    found = httpx.get(f"{address}/teach", headers={"cookie": cookie.partition(";")[0]})
    assert found.status_code == 403, "a cookie keeps its letters"
    cookie = answer.headers["set-cookie"].partition(";")[0]
    assert httpx.get(f"{address}/teach", headers={"cookie": cookie}).status_code == 200
    elsewhere = httpx.get(studio.entry.link(f"{address}//evil.example"))
    assert elsewhere.headers["location"] == "/evil.example"


@pytest.mark.parametrize("tab", TABS)
def test_pages_load_nothing_from_elsewhere_and_may_not(client, tab):
    answer = client.get(f"/{tab}")
    policy = answer.headers["content-security-policy"]
    for rule in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"):
        assert rule in policy
    assert "unsafe" not in policy
    assert "camera=(self)" in answer.headers["permissions-policy"]
    assert "http://" not in answer.text
    assert "https://" not in answer.text
    assert 'aria-current="page"' in answer.text


def test_the_first_page_is_ask_where_a_run_answers(client, tmp_path):
    assert client.get("/").headers["location"] == "/ask"
    with (
        studio_served(tmp_path / "runs", tmp_path / "taught") as both,
        client_of(*both) as alone,
    ):
        assert alone.get("/").headers["location"] == "/teach"
        answer = alone.post("/api/ask", files=sent(make_photo(tmp_path / "a.jpg")))
        assert answer.status_code == 400
        assert "python train.py" in answer.json()["error"]


# ---- ask -----------------------------------------------------------------------------------------


def test_answers_are_those_of_predict_py(client, runs, photo):
    (expected,) = Classifier(runs / "first" / "bundle").answers([photo])
    found = client.post("/api/ask", files=sent(photo)).json()
    assert found["run"] == "first"
    (answer,) = found["answers"]
    assert answer["words"] == expected.words
    assert answer["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)


def test_a_file_that_is_no_photo_stops_no_other(client, photo, tmp_path):
    (tmp_path / "bomb.png").write_bytes(bomb())
    answers = client.post("/api/ask", files=sent(tmp_path / "bomb.png", photo)).json()["answers"]
    assert "pixels, more than" in answers[0]["error"]
    assert answers[1]["error"] is None
    for path in ("why", "similar", "screen"):
        answer = client.post(f"/api/{path}", files=sent(tmp_path / "bomb.png"))
        assert answer.status_code == 422
        assert "pixels, more than" in answer.json()["error"]
        assert client.post(f"/api/{path}", files=sent(photo, photo)).status_code == 400


def test_the_evidence_adds_up_to_the_answer(client, runs, photo):
    from app.data.decode import load_image
    from app.inference.heatmap import contrastive_cam

    found = client.post("/api/why", files=sent(photo)).json()
    assert found["run"] == "first"
    classifier = Classifier(runs / "first" / "bundle")
    maps = classifier.activation_maps(load_image(photo, classifier.bundle.image_size)[None])[0]
    cam = contrastive_cam(maps, CLASSES.index(found["label"]))
    grid = np.array(found["grid"])
    assert np.abs(grid).max() == 1
    np.testing.assert_allclose(grid, cam / np.abs(cam).max(), atol=1e-3)


def test_a_run_without_a_manifest_names_no_similar_photos(client, photo):
    assert client.post("/api/similar", files=sent(photo)).json() == {"photos": None, "run": "first"}
    assert client.get("/api/training/0?run=first").status_code == 422
    answer = client.get("/api/training/0?run=other")
    assert "expected a photo of the run that answers" in answer.json()["error"]


def test_samples_are_photos_of_both_kinds(client):
    assert client.get("/api/state").json()["samples"] == len(SAMPLES) == 6
    for number in range(len(SAMPLES)):
        data = client.get(f"/api/sample/{number}").content
        assert data == drawn_sample(number)
        assert Image.open(io.BytesIO(data)).format == "JPEG"
    assert client.get("/api/sample/6").status_code == 404


def test_a_photo_that_browsers_cannot_show_is_sent_as_jpeg(client, tmp_path):
    picture(1, (2000, 1000)).save(tmp_path / "photo.tiff")
    answer = client.post("/api/screen", files=sent(tmp_path / "photo.tiff"))
    assert Image.open(io.BytesIO(answer.content)).size == (1024, 512)


def test_another_run_is_opened_by_name_alone(client, runs):
    for name in ("none", "../runs/first", "first/", "", "."):
        answer = client.post("/api/open", json={"name": name})
        assert answer.status_code == 400
        assert "expected a finished run" in answer.json()["error"]
    assert client.post("/api/open", json={"name": "first"}).json()["current"] == "first"
    answer = client.post("/api/open", content=b"{")
    assert answer.status_code == 400
    assert client.post("/api/open", content=b" " * 20_000).status_code == 413


# ---- teach ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "1 to 60 letters"),
        ("a/b", "1 to 60 letters"),
        ("..", "1 to 60 letters"),
        ("-x", "1 to 60 letters"),
        ("x\ny", "1 to 60 letters"),
        ("x" * 61, "1 to 60 letters"),
        ("unsure", "which is an answer"),
        ("Neither", "in small letters"),
        ("train", "data sets are called"),
        ("images", "data sets are called"),
        ("CLASS 1", "different names"),
    ],
)
def test_names_that_no_folder_of_a_class_can_have(client, name, words):
    answer = client.post("/api/teach/change", json={"what": "add", "name": name})
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    assert len(client.get("/api/teach").json()["classes"]) == 2


def test_an_unknown_change_removes_nothing(client):
    answer = client.post("/api/teach/change", json={"what": "tidy", "number": 1})
    assert answer.status_code == 400
    assert "expected the page's own request" in answer.json()["error"]


def test_too_few_photos_are_told(client):
    for path in ("solve", "save"):
        answer = client.post(f"/api/teach/{path}", json={"name": "x"})
        assert answer.status_code == 400
        assert "expected 5 photos of each class or more; received 0" in answer.json()["error"]


# ---- review --------------------------------------------------------------------------------------


def test_what_is_no_list_of_now_is_refused(client):
    """A number names another photo in another list, as of another window."""
    values = {"review": "x", "number": 0, "decision": "right", "new": "second"}
    answers = [
        client.post(f"/api/review/{path}", json=values)
        for path in ("why", "decide", "undo", "preview", "train")
    ]
    for answer in (*answers, client.get("/api/review/photo/0?review=x")):
        assert answer.status_code == 400
        assert "about the photos that are reviewed now" in answer.json()["error"]
    answer = client.post("/api/review", json={"name": "first", "unlabelled": "a\0b"})
    assert answer.status_code == 400
    assert "expected the path of a folder" in answer.json()["error"]


# ---- jobs and the command ------------------------------------------------------------------------


def test_a_job_is_an_ordinary_command_and_its_words_are_kept(client, runs, tmp_path):
    folder = str(tmp_path / "shared")
    started = client.post("/api/share", json={"run": "first", "folder": folder}).json()["job"]
    assert started["command"] == f"python -m app share {runs / 'first'} {folder}"
    ended = eventually(
        lambda: (job := client.get("/api/job").json()["job"]) and not job["running"] and job
    )
    assert ended["code"] is not None
    assert ended["lines"]
    for wrong in ("-x", " ", "a\0b"):
        answer = client.post("/api/share", json={"run": "first", "folder": wrong})
        assert answer.status_code == 400
        assert "expected the path of a new folder" in answer.json()["error"]


def test_a_job_that_cannot_start_is_in_nobodys_way():
    async def work() -> None:
        jobs = Jobs()
        for _ in range(2):
            with pytest.raises(ValueError, match="null"):
                await jobs.start(["a\0b"], "share")

    asyncio.run(work())


def test_letters_that_come_in_two_pieces_stay_whole():
    class Pieces:
        def __init__(self) -> None:
            self.left = [b"caf\xc3", b"\xa9\n", b""]
            self.stdout = self

        async def read(self, _: int) -> bytes:
            return self.left.pop(0)

        async def wait(self) -> int:
            return 0

    jobs = Jobs()
    asyncio.run(jobs._read(Pieces()))
    assert list(jobs._lines) == ["café"]


def test_wrong_usage_is_one_line(tmp_path, capsys):
    for argv, words in (
        (["--run", "none", "--runs", str(tmp_path)], "expected a bundle"),
        (["--port", "99999"], "expected 0 to 65535"),
        (["--image-size", "8"], "expected 32 to 1024"),
    ):
        assert run(main, argv) == 2
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert words in last


def test_runs_are_only_those_that_are_finished(tmp_path):
    (tmp_path / "begun").mkdir()
    with (
        studio_served(tmp_path, tmp_path / "taught") as both,
        client_of(*both) as alone,
    ):
        assert alone.get("/api/state").json()["runs"] == []
    assert not Run(tmp_path / "begun").is_complete()
