"""What the tab Teach holds and saves, with a real network of random weights."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from photos import make_photo

from app.core.errors import UsageError
from app.core.labels import NEITHER
from app.data.folder_layout import ENOUGH
from app.serving.decoders import Decoders
from app.serving.uploads import Upload
from app.studio.teaching import Teaching

SIZE = 32


@pytest.fixture(scope="module")
def uploads(tmp_path_factory) -> list[Upload]:
    folder = tmp_path_factory.mktemp("photos")
    paths = [make_photo(folder / f"{number}.jpg", number) for number in range(2 * ENOUGH)]
    return [Upload(path.name, path.read_bytes()) for path in paths]


@pytest.fixture
def with_photos(tmp_path, uploads) -> Callable[[Callable[[Teaching], Awaitable[None]]], None]:
    """Return what calls something with a lesson's classes, which have just enough photos."""

    async def call(work: Callable[[Teaching], Awaitable[None]]) -> None:
        decoders = Decoders(30.0, 64_000_000, lambda _: None)
        folders = (tmp_path / "taught", tmp_path / "runs")
        teaching = Teaching(decoders, *folders, SIZE, "none")
        try:
            for place, each in enumerate(teaching.classes):
                await teaching.add(each.number, uploads[place::2], "")
            await work(teaching)
        finally:
            teaching.close()
            await decoders.close()

    return lambda work: asyncio.run(call(work))


def test_what_is_saved_is_what_the_cards_show(with_photos, uploads, tmp_path):
    """A class without photos becomes no folder, and the user's bytes are kept."""

    async def work(teaching: Teaching) -> None:
        teaching.add_class(NEITHER)
        arguments = await teaching.save("mine")
        assert arguments[:3] == ["train", "--data", str(tmp_path / "taught" / "mine")]

    with_photos(work)
    saved = tmp_path / "taught" / "mine"
    assert sorted(path.name for path in saved.iterdir()) == ["class 1", "class 2"]
    for place, folder in enumerate(sorted(saved.iterdir())):
        found = [path.read_bytes() for path in sorted(folder.iterdir())]
        assert found == [upload.data for upload in uploads[place::2]]


@pytest.mark.parametrize("what", ["solve", "save"])
def test_photos_that_are_removed_meanwhile_are_missed(with_photos, tmp_path, what):
    """Another window may remove them while their features are computed."""

    async def work(teaching: Teaching) -> None:
        begun = asyncio.ensure_future(teaching.solve() if what == "solve" else teaching.save("x"))
        await asyncio.sleep(0)
        assert teaching.state()["classes"][0]["waiting"]
        teaching.empty(teaching.classes[0].number)
        with pytest.raises(UsageError, match="photos of each class or more; received 0"):
            await begun

    with_photos(work)
    assert not (tmp_path / "taught").exists()
