from edgead.train.loop import Progress
from edgead.train.progress import TrainingProgress


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
    assert lines[1] == "epoch 2/20  loss 0.2500  12 pictures/s"
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
    assert "━" in err


def test_nothing_trained_shows_nothing(capfd):
    with TrainingProgress(enabled=True):
        pass
    assert capfd.readouterr().err == ""
