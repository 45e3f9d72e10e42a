"""The display of the command line for the records that the package logs."""

import logging

import pytest

from edgead.cli.progress import ProgressDisplay, first_line
from edgead.files.progress import ScoringState, TrainingState, log_state
from edgead.text import duration
from tests.helpers.screen import Screen

LOG = logging.getLogger("edgead.some.module")


def train(first=0, epochs=20):
    for epoch in range(first, epochs):
        for share in (0.5, 1.0):
            log_state(LOG, TrainingState(epoch, epochs, share, 0.25, 12.0))


def use_terminal(monkeypatch):
    """Make standard error a terminal; to be called in the test itself, because capfd replaces standard error first."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")


def test_without_a_terminal_there_is_a_line_per_tenth(capfd):
    with ProgressDisplay():
        LOG.info("[bold]not markup[/]")
        train()
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[0] == "[bold]not markup[/]"
    assert lines[1] == "epoch 2/20  loss 0.2500  12 images/s"
    assert "total" in lines[-1]
    assert len(lines) == 11


def test_a_continued_training_shows_the_remaining_tenths(capfd):
    with ProgressDisplay():
        train(first=10)
    assert len(capfd.readouterr().err.splitlines()) == 5


@pytest.mark.parametrize("name", ["LOCAL_RANK", "NODE_RANK", "RANK"])
def test_only_the_first_of_many_processes_prints(name, capfd, monkeypatch):
    monkeypatch.setenv(name, "1")
    first_line("training")
    with ProgressDisplay():
        LOG.info("something")
        LOG.warning("something else")
        train()
    assert capfd.readouterr().err == ""
    monkeypatch.setenv(name, "0")
    first_line("training")
    assert capfd.readouterr().err.count("\n") == 1


def test_a_terminal_shows_a_bar_and_lines_above_and_below_it(capfd, clock, monkeypatch):
    use_terminal(monkeypatch)
    with ProgressDisplay():
        log_state(LOG, TrainingState(0, 2, 0.5, 0.25, 12.0))
        clock[0] += 60
        log_state(LOG, TrainingState(0, 2, 1.0, 0.25, 12.0))
        LOG.warning("[bold]above[/]")
        clock[0] += 60
        train(first=1, epochs=2)
        LOG.info("below")
    screen = Screen(120)
    screen.write(capfd.readouterr().err)
    above, bar, below, after = screen.lines
    assert above.rstrip() == "warning: [bold]above[/]"
    assert bar.rstrip() == f"epoch 2/2 [{'#' * 40}]  total 2 min 0 s  loss 0.2500  12 images/s"
    assert (below, after) == ("below", "")
    # Half of the training took a minute, so another one is left.
    assert f"epoch 1/2 [{'#' * 20}{'.' * 20}]  left 1 min 0 s  loss 0.2500  12 images/s" in screen.written


@pytest.mark.parametrize(
    ("columns", "bar"),
    [
        (73, f"epoch 13/20 [{'#' * 10}{'.' * 5}]  left 6 min 28 s  loss 0.2500  12 images/s"),
        (40, "epoch 13/20  left 6 min 28 s"),
        (20, "epoch 13/20"),
        (10, "epoch"),
    ],
)
def test_the_bar_fits_into_the_terminal(columns, bar, capfd, clock, monkeypatch):
    use_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Screen(columns)
    with ProgressDisplay():
        for epoch in range(13):
            log_state(LOG, TrainingState(epoch, 20, 1.0, 0.25, 12.0))
            clock[0] += 60
            screen.write(capfd.readouterr().err)
            (line,) = screen.lines
            assert len(line) < columns
    # 13 of 20 epochs took 12 minutes.
    assert line.rstrip() == bar
    assert "\x1b" not in screen.written


def test_nothing_logged_shows_nothing(capfd):
    with ProgressDisplay():
        LOG.debug("for developers")
    assert capfd.readouterr().err == ""


def test_a_warning_is_one_line_and_shown_once(capfd):
    with ProgressDisplay():
        LOG.warning("%d images are too few", 3)
    assert capfd.readouterr().err == "warning: 3 images are too few\n"


def test_without_a_display_nothing_is_printed(capfd):
    with ProgressDisplay():
        pass
    LOG.info("a step")
    LOG.warning("a warning")
    train()
    assert capfd.readouterr().err == ""
    assert logging.getLogger("edgead").level == logging.NOTSET


def test_without_a_terminal_nothing_is_counted(capfd):
    with ProgressDisplay():
        log_state(LOG, ScoringState(2, 3))
    assert capfd.readouterr().err == ""


def test_scored_images_are_counted_in_one_line(capfd, monkeypatch):
    use_terminal(monkeypatch)
    with ProgressDisplay():
        for done in (2, 3):
            log_state(LOG, ScoringState(done, 3))
        LOG.warning("between")
        for done in (3, 4):
            log_state(LOG, ScoringState(done, 4))
        LOG.info("below")
    screen = Screen(120)
    screen.write(capfd.readouterr().err)
    assert screen.lines == ["scored 3 of 3 images", "warning: between", "scored 4 of 4 images", "below", ""]


def test_a_line_below_an_unfinished_count_begins_on_a_line_of_its_own(capfd, monkeypatch):
    use_terminal(monkeypatch)

    def fail():
        with ProgressDisplay():
            log_state(LOG, ScoringState(2, 3))
            LOG.warning("a")
            log_state(LOG, ScoringState(2, 3))
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    screen = Screen(120)
    screen.write(capfd.readouterr().err)
    assert screen.lines == ["scored 2 of 3 images", "warning: a", "scored 2 of 3 images", ""]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (12.4, "12 s"),
        (59.6, "1 min 0 s"),
        (185, "3 min 5 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_a_time_is_formatted_for_people(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_each_step_has_its_time_and_a_message_has_none(capfd, clock):
    with ProgressDisplay(timed=True) as display:
        LOG.info("exporting")
        clock[0] += 3.2
        LOG.info("it is large")
        LOG.info("checking")
        clock[0] += 70
        LOG.warning("it is slow")
        clock[0] += 5
    assert capfd.readouterr().err.splitlines() == [
        "exporting", "  took 3.2 s", "it is large", "checking", "warning: it is slow", "  took 1 min 15 s",
    ]  # fmt: skip
    assert display.total == "1 min 18 s"


def test_on_a_terminal_the_time_is_behind_the_step(capfd, clock, monkeypatch):
    use_terminal(monkeypatch)
    with ProgressDisplay(timed=True):
        LOG.info("exporting")
        clock[0] += 3.2
        LOG.info("checking")
    assert capfd.readouterr().err == "exporting  3.2 s\nchecking\n"


def test_on_a_terminal_a_warning_begins_a_line_of_its_own(capfd, clock, monkeypatch):
    use_terminal(monkeypatch)
    with ProgressDisplay(timed=True):
        LOG.info("exporting")
        clock[0] += 3.2
        LOG.warning("it is large")
    assert capfd.readouterr().err == "exporting\nwarning: it is large\n  took 3.2 s\n"


@pytest.mark.parametrize("on_a_terminal", [True, False])
def test_a_step_that_fails_has_no_time(capfd, clock, monkeypatch, on_a_terminal):
    monkeypatch.setattr("sys.stderr.isatty", lambda: on_a_terminal)

    def fail():
        with ProgressDisplay(timed=True):
            LOG.info("exporting")
            clock[0] += 3.2
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert capfd.readouterr().err == "exporting\n"


def test_a_handler_that_knows_no_states_prints_them_as_text(caplog):
    caplog.set_level("DEBUG", logger="edgead")
    log_state(LOG, TrainingState(0, 2, 0.5, 0.25, 12.0))
    log_state(LOG, ScoringState(2, 3))
    assert caplog.messages == ["epoch 1/2  loss 0.2500  12 images/s", "scored 2 of 3 images"]


def test_a_scoring_shows_the_time_left_and_the_speed(capfd, clock, monkeypatch):
    use_terminal(monkeypatch)
    screen = Screen(120)
    with ProgressDisplay():
        for done, line in (
            (40, "scored 40 of 100 images"),
            (60, "scored 60 of 100 images  left 10 s  4 images/s"),
        ):
            log_state(LOG, ScoringState(done, 100))
            screen.write(capfd.readouterr().err)
            # 20 images in 5 seconds, so 40 images take 10. The images before the first state count in no speed.
            assert screen.lines[-1].rstrip() == line
            clock[0] += 5
        LOG.warning("between")
        log_state(LOG, ScoringState(80, 100))
    screen.write(capfd.readouterr().err)
    assert screen.lines[1:] == ["warning: between", "scored 80 of 100 images  left 5.0 s  4 images/s", ""]


def test_a_long_scoring_without_a_terminal_is_a_line_now_and_then(capfd, clock):
    with ProgressDisplay():
        for done in range(10, 101, 10):
            log_state(LOG, ScoringState(done, 100))
            clock[0] += 10
    assert capfd.readouterr().err.splitlines() == [
        "scored 40 of 100 images  left 1 min 0 s  1 images/s",
        "scored 70 of 100 images  left 30 s  1 images/s",
        "scored 100 of 100 images",
    ]
