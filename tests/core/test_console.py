"""Progress where there is no terminal: a line now and then, with what is done and left."""

import re
import time

import app.core.console
from app.core.console import progress_bar, progress_line


def test_without_a_terminal_lines_tell_the_progress(monkeypatch, capsys):
    monkeypatch.setattr(app.core.console, "FIRST_LINE", 0.02)
    monkeypatch.setattr(app.core.console, "NEXT_LINES", 0.02)
    with progress_bar() as bar:
        quick = bar.add_task("Finished", total=1)
        bar.advance(quick)
        task = bar.add_task("Reading photos", total=4)
        bar.advance(task)
        deadline = time.monotonic() + 20
        said = ""
        while said.count("\n") < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
            said += capsys.readouterr().err
    assert re.fullmatch(r"(Reading photos: 25 % done, about \d+ s left\n){2,}", said)
    time.sleep(0.1)
    assert capsys.readouterr().err.count("\n") <= 1  # one may have come before the end


def test_what_is_quick_says_nothing(capsys):
    with progress_bar() as bar:
        bar.add_task("Reading photos", total=4)
    assert capsys.readouterr().err == ""


def test_the_time_left_leaves_out_what_an_earlier_process_did():
    now = [0.0]
    with progress_bar() as bar:
        bar.get_time = lambda: now[0]
        bar.add_task("Stage block5", total=400, completed=200, begun=200)
        (task,) = bar.tasks
        task._get_time = bar.get_time
        now[0] = 60.0
        assert progress_line(task) == "Stage block5: 50 % done after 60 s"
        bar.advance(task.id, 50)
        assert progress_line(task) == "Stage block5: 62 % done, about 3 min left"


def test_the_rate_is_told_where_a_unit_is_given():
    now = [0.0]
    with progress_bar() as bar:
        bar.get_time = lambda: now[0]
        bar.add_task("Scoring", total=400, completed=100, begun=100, unit="files")
        (task,) = bar.tasks
        task._get_time = bar.get_time
        now[0] = 50.0
        bar.advance(task.id, 100)
        assert progress_line(task) == "Scoring: 50 % done, 2.0 files/s, about 2 min left"
