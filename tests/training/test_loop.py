from functools import partial

import pytest
import torch

import edgead.training.features as features_module
from edgead.errors import RunError, TrainingError
from edgead.imaging.preprocess import ModelSize
from edgead.models import create_method
from edgead.models.components.teacher import create_teacher
from edgead.models.rd import LOSSES
from edgead.training.checkpoint import read_checkpoint, student_state
from edgead.training.loop import Trainer, TrainingImages
from edgead.training.schedule import Schedule, check_training
from tests.helpers.training_parts import TINY_TEACHER, cpu, good_parts, same_tensors, tiny_config, watched

IMAGES = torch.from_numpy(good_parts(12))
TRAIN, HOLDOUT = IMAGES[:10], IMAGES[10:]


@pytest.fixture
def config(tmp_path):
    return tiny_config(tmp_path)


def new_method(loss=LOSSES[0], size=64):
    torch.manual_seed(0)
    return create_method("rd", create_teacher(TINY_TEACHER, "random"), ModelSize(size, size), loss)


def run(config, tmp_path, checkpoint=None, method=None, progress=None, train=TRAIN, holdout=HOLDOUT):
    """Train with a checkpoint after every epoch; return the method and the result of `Trainer.fit`."""
    method = method or new_method()
    images = TrainingImages(train, holdout)
    trainer = Trainer(cpu(), method, config.schedule, images, tmp_path / "c.pt", checkpoint_every_s=0.0)
    with watched(progress):
        return method, trainer.fit(checkpoint)


def without_time(metrics):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in metrics]


def test_two_trainings_are_bitwise_equal(config, tmp_path):
    one, fitted_one = run(config, tmp_path)
    other, fitted_other = run(config, tmp_path)
    assert same_tensors(one.state_dict(), other.state_dict())
    assert without_time(fitted_one.metrics) == without_time(fitted_other.metrics)


def test_another_seed_is_another_order(config, tmp_path):
    one, _ = run(config, tmp_path)
    other, _ = run(tiny_config(tmp_path, seed=1), tmp_path)
    assert not same_tensors(student_state(one), student_state(other))


class KilledError(Exception):
    pass


def stop_in(epoch, state):
    if state.epoch == epoch:
        raise KilledError


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_continued_training_is_bitwise_the_uninterrupted_one(config, tmp_path, epoch):
    whole, fitted_whole = run(config, tmp_path)
    with pytest.raises(KilledError):
        run(config, tmp_path, progress=partial(stop_in, epoch))
    checkpoint = read_checkpoint(tmp_path / "c.pt")
    assert checkpoint is not None
    assert checkpoint.epoch == epoch

    continued, fitted = run(config, tmp_path, checkpoint)

    assert same_tensors(continued.state_dict(), whole.state_dict())
    assert without_time(fitted.metrics) == without_time(fitted_whole.metrics)
    assert fitted.losses_before == fitted_whole.losses_before


def noisy_method():
    """A method that draws random numbers in training."""
    torch.manual_seed(0)
    teacher = create_teacher(TINY_TEACHER, "random")
    return create_method("rd++", teacher, ModelSize(64, 64), LOSSES[0])


def test_a_continued_training_draws_the_same_random_numbers(config, tmp_path):
    whole, _ = run(config, tmp_path, method=noisy_method())
    with pytest.raises(KilledError):
        run(config, tmp_path, method=noisy_method(), progress=partial(stop_in, 2))
    torch.manual_seed(12345)
    continued, _ = run(config, tmp_path, read_checkpoint(tmp_path / "c.pt"), method=noisy_method())
    assert same_tensors(continued.state_dict(), whole.state_dict())


def test_another_seed_draws_other_numbers(config, tmp_path):
    """One batch holds all images, so that their order changes only the rounding."""
    drawn = []
    for seed in (0, 1):
        method = noisy_method()
        draw = method.forward

        def noted(images, features, draw=draw):
            state = torch.get_rng_state()
            drawn.append(int(torch.randint(2**62, ())))
            torch.set_rng_state(state)
            return draw(images, features)

        method.forward = noted
        one = tiny_config(tmp_path, epochs=2, batch_size=10, seed=seed)
        run(one, tmp_path, method=method)
    # One held-out pass before and after each epoch; training is the second and the fourth.
    assert len({*drawn[1:4:2], *drawn[6:9:2]}) == 4


def test_a_paper_schedule_is_constant(config, tmp_path):
    torch.manual_seed(0)
    teacher = create_teacher(TINY_TEACHER, "random")
    method = create_method("stfpm", teacher, ModelSize(64, 64), "per-position", preset="paper")
    _, fitted = run(tiny_config(tmp_path, epochs=4, learning_rate=0.02), tmp_path, method=method)
    assert [row["learning_rate"] for row in fitted.metrics] == [0.02] * 4


def test_a_training_is_not_continued_with_other_images(config, tmp_path):
    run(config, tmp_path)
    checkpoint = read_checkpoint(tmp_path / "c.pt")
    other = TRAIN.clone()
    other[4, 5, 6, 0] += 1
    with pytest.raises(RunError) as caught:
        run(config, tmp_path, checkpoint, train=other)
    assert str(tmp_path / "c.pt") in caught.value.what
    # Unlike for another method below, another --out helps here.
    assert "--out" in caught.value.hint


def test_a_training_is_not_continued_by_a_method_with_other_tensors(config, tmp_path):
    run(config, tmp_path)
    checkpoint = read_checkpoint(tmp_path / "c.pt")
    checkpoint.student["of.another.version"] = torch.zeros(1)
    with pytest.raises(RunError) as caught:
        run(config, tmp_path, checkpoint)
    assert str(tmp_path / "c.pt") in caught.value.what
    assert "of.another.version" in caught.value.what


def test_the_student_learns_and_the_teacher_does_not(config, tmp_path):
    before = new_method().state_dict()
    method, fitted = run(config, tmp_path)
    assert fitted.metrics[-1]["loss"] < fitted.metrics[0]["loss"]
    assert [row["epoch"] for row in fitted.metrics] == [1, 2, 3]
    assert not method.training
    for key, value in method.state_dict().items():
        if key.startswith("teacher."):
            assert torch.equal(value, before[key])


def test_the_learning_rate_is_one_cycle(config, tmp_path):
    _, fitted = run(tiny_config(tmp_path, epochs=10, learning_rate=0.01), tmp_path)
    rates = [row["learning_rate"] for row in fitted.metrics]
    assert max(rates) == pytest.approx(0.01, rel=0.1)
    assert rates.index(max(rates)) in (2, 3)
    assert rates[-1] < 1e-5


def test_the_state_is_logged_after_every_batch(config, tmp_path):
    states = []
    run(config, tmp_path, progress=states.append)
    # Ten images are two whole batches of four.
    assert [(s.epoch, s.share) for s in states] == [(e, s) for e in range(3) for s in (0.5, 1.0)]
    assert all(s.epochs == 3 and s.images_per_s > 0 for s in states)


def test_fewer_images_than_a_batch_are_one_batch(config, tmp_path):
    states = []
    run(config, tmp_path, progress=states.append, train=TRAIN[:3])
    assert [s.share for s in states] == [1.0] * 3


def test_cached_features_give_the_same_training(config, tmp_path, monkeypatch):
    _, cached = run(config, tmp_path)
    monkeypatch.setattr(features_module, "MEMORY_SHARE", 0.0)
    _, asked = run(config, tmp_path)
    for one, other in zip(cached.metrics, asked.metrics, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
    assert cached.losses_before == pytest.approx(asked.losses_before, rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_first_held_out_loss_is_that_of_the_untrained_student(config, tmp_path, loss):
    method = new_method(loss).eval()
    with torch.no_grad():
        expected = float(method.loss(*method.features(HOLDOUT)))
    _, fitted = run(config, tmp_path, method=new_method(loss))
    assert fitted.losses_before == pytest.approx([expected], rel=1e-5)


@pytest.mark.parametrize("holdout_only", [False, True])
def test_a_loss_that_is_not_finite_ends_the_training(config, tmp_path, holdout_only):
    method = new_method()
    loss = method.loss

    def broken(teacher, student):
        spoilt = method.training != holdout_only
        return loss(teacher, student) * (float("nan") if spoilt else 1.0)

    method.loss = broken
    with pytest.raises(TrainingError) as caught:
        run(config, tmp_path, method=method)
    assert ("held-out" in caught.value.what) == holdout_only
    assert "nan" in caught.value.what
    assert "epoch 1" in caught.value.what
    assert f"--learning-rate than {config.learning_rate}" in caught.value.hint


def test_a_batch_of_one_small_image_is_too_small(tmp_path):
    small = torch.from_numpy(good_parts(4, 32))
    with pytest.raises(TrainingError) as caught:
        run(
            tiny_config(tmp_path, batch_size=1),
            tmp_path,
            method=new_method(size=32),
            train=small,
            holdout=small,
        )
    assert "32x32" in caught.value.what
    assert "--batch-size" in caught.value.hint
    run(tiny_config(tmp_path, batch_size=2), tmp_path, method=new_method(size=32), train=small, holdout=small)


def test_every_process_needs_an_image():
    with pytest.raises(TrainingError) as caught:
        check_training(new_method(), Schedule(1, 4, 0.005, 0), TRAIN[:1], 2)
    assert "1 good images" in caught.value.what
    assert "2 processes" in caught.value.what
    assert "--devices" in caught.value.hint


def test_no_checkpoint_is_written_before_the_interval_ends(config, tmp_path):
    images = TrainingImages(TRAIN, HOLDOUT)
    file = tmp_path / "c.pt"
    Trainer(cpu(), new_method(), config.schedule, images, file, checkpoint_every_s=3600.0).fit()
    assert not (tmp_path / "c.pt").exists()
