import pytest

from edgead.cli.progress import Steps, TrainingProgress, duration, first_line
from edgead.training.loop import Progress


def states(first=0):
    return [Progress(epoch, 20, share, 0.25, 12.0) for epoch in range(first, 20) for share in (0.5, 1.0)]


def test_without_a_terminal_there_is_a_line_per_tenth(capfd):
    with TrainingProgress(enabled=True) as progress:
        progress.say("[bold]not markup[/]")
        for state in states():
            progress.update(state)
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[0] == "[bold]not markup[/]"
    assert lines[1] == "epoch 2/20  loss 0.2500  12 images/s"
    assert len(lines) == 11


def test_a_continued_training_tells_what_is_left(capfd):
    with TrainingProgress(enabled=True) as progress:
        for state in states(first=10):
            progress.update(state)
    assert len(capfd.readouterr().err.splitlines()) == 5


def test_only_one_of_many_processes_speaks(capfd):
    with TrainingProgress(enabled=False) as progress:
        progress.say("something")
        for state in states():
            progress.update(state)
    assert capfd.readouterr().err == ""


def test_a_terminal_shows_a_bar(capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with TrainingProgress(enabled=True) as progress:
        for state in states():
            progress.update(state)
    err = capfd.readouterr().err
    assert "epoch 20/20" in err
    assert "left" in err
    assert err.split("epoch 20/20")[-1].count("total") == 1
    assert "━" in err


def test_nothing_trained_shows_nothing(capfd):
    with TrainingProgress(enabled=True):
        pass
    assert capfd.readouterr().err == ""


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
def test_a_time_is_read_by_people(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_each_step_has_its_time_and_a_message_has_none(capfd, clock):
    with Steps() as steps:
        steps.say("exporting")
        clock[0] += 3.2
        steps.say("it is large")
        steps.say("checking")
        clock[0] += 75
    assert capfd.readouterr().err.splitlines() == [
        "exporting", "  took 3.2 s", "it is large", "checking", "  took 1 min 15 s",
    ]  # fmt: skip
    assert steps.total == "1 min 18 s"


def test_on_a_terminal_the_time_is_behind_the_step(capfd, clock, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Steps() as steps:
        steps.say("exporting")
        clock[0] += 3.2
        steps.say("checking")
    assert capfd.readouterr().err == "exporting  3.2 s\nchecking\n"


def test_a_step_that_fails_has_no_time(capfd, clock):
    steps = Steps()
    steps.say("exporting")
    clock[0] += 3.2
    with pytest.raises(ValueError, match="broken"), steps:
        raise ValueError("broken")
    assert capfd.readouterr().err == "exporting\n"


@pytest.mark.parametrize("name", ["LOCAL_RANK", "NODE_RANK", "RANK"])
def test_one_of_many_processes_says_the_first_line(name, capfd, monkeypatch):
    monkeypatch.setenv(name, "1")
    first_line("training")
    assert capfd.readouterr().err == ""
    monkeypatch.setenv(name, "0")
    first_line("training")
    assert capfd.readouterr().err.count("\n") == 1
