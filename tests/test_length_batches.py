"""Batches of sequences of like lengths: each row once, unbiased, resumable, cut."""

import math

import pytest
import torch
from pyro.infer import Trace_ELBO

from latente.inference import fit, load_data
from latente.inference.data.batches import epoch_batches
from latente.inference.data.length_batches import LEVELS, divide_circle

from .sequence_pair import WrongGuide, exact_guide, model, there


def padded(num=53, longest=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (num,), generator=generator)
    lengths[0] = longest
    x = torch.randn(num, longest, generator=generator)
    return x * there(x, lengths), lengths


def batches(rows, size, epoch=0, seed=0, place=2):
    return list(epoch_batches(rows, size, seed=seed, epoch=epoch, place_of_lengths=place))


@pytest.mark.parametrize("size", [1, 7, 10, 53])
def test_each_row_is_in_one_batch_and_nothing_but_padding_is_cut(size):
    x, lengths = padded()
    number = torch.arange(len(x))
    made = batches((x, number, lengths), size)
    assert len(made) == math.ceil(53 / size)
    sizes = [len(part) for part, *_ in made]
    assert max(sizes) - min(sizes) <= 1
    assert sorted(torch.cat([numbers for _, numbers, _ in made]).tolist()) == number.tolist()
    for part, numbers, of in made:
        assert torch.equal(of, lengths[numbers])
        assert part.shape[1] >= of.max()
        assert part.shape[1] < of.max() + 40 / LEVELS
        assert torch.equal(part, x[numbers][:, : part.shape[1]])
        assert torch.equal(part.sum(1), x[numbers][:, : part.shape[1]].sum(1))


def test_lengths_in_a_batch_are_alike_but_in_one_and_so_padding_is_saved():
    x, lengths = padded(400)
    made = batches((x, torch.arange(400), lengths), 20, epoch=1)
    spread = sorted(int(of.max() - of.min()) for _, _, of in made)
    assert spread[-1] > 30  # the batch that holds both ends
    assert spread[-2] < 6
    steps = sum(part.shape[0] * part.shape[1] for part, *_ in made)
    assert steps < 0.75 * x.numel()


def test_batches_are_of_the_seed_and_the_epoch():
    x, lengths = padded()
    rows = (x, torch.arange(len(x)), lengths)

    def order(**options):
        return torch.cat([numbers for _, numbers, _ in batches(rows, 10, **options)])

    assert torch.equal(order(epoch=3), order(epoch=3))
    assert not torch.equal(order(epoch=3), order(epoch=4))
    assert not torch.equal(order(seed=1), order(seed=2))


@pytest.mark.parametrize(("num_rows", "num_batches"), [(7, 3), (12, 4), (11, 5), (5, 5)])
def test_a_scaled_loss_is_unbiased_at_each_step(num_rows, num_batches):
    # The place is uniform on the circle, and the batch of a step uniform among all: the mean over
    # both of 1/p, for a row in the batch, is its weight in the expected loss.
    weight = torch.zeros(num_rows, dtype=torch.float64)
    for place in range(num_rows):
        for rows in divide_circle(torch.arange(num_rows), place, num_batches):
            weight[rows] += num_rows / len(rows)
    weight /= num_rows * num_batches
    torch.testing.assert_close(weight, torch.ones_like(weight))


def test_a_fit_is_resumed_bit_for_bit(tmp_path):
    sequences = [row[:length] for row, length in zip(*padded(), strict=True)]
    data = load_data(sequences, validation=0.2, test=0)
    options = {
        "batch_size": 8, "like_lengths": True, "show_progress": False, "device": "cpu", "seed": 3,
        "learning_rate": 0.05,
    }  # fmt: skip
    whole = fit(model, WrongGuide(), data, epochs=4, **options)
    halves = WrongGuide()
    fit(model, halves, data, epochs=2, out=tmp_path / "run", **options)
    again = fit(model, halves, data, epochs=4, out=tmp_path / "run", resume=True, **options)
    figures = [[row["loss"], row["elbo"], row["validation_elbo"]] for row in whole.history]
    assert figures == [[row["loss"], row["elbo"], row["validation_elbo"]] for row in again.history]
    other = fit(model, WrongGuide(), data, epochs=4, **(options | {"like_lengths": False}))
    assert other.history[0]["loss"] != whole.history[0]["loss"]
    with pytest.raises(ValueError, match="was run with like_lengths=True, not False"):
        fit(
            model, halves, data, epochs=5, out=tmp_path / "run", resume=True,
            **(options | {"like_lengths": False}),
        )  # fmt: skip


def test_cut_batches_sum_to_the_loss_of_all_rows():
    # The exact guide has a loss without noise: that of an epoch is −log p(x), in batches or whole.
    x, lengths = padded()

    class Exact(WrongGuide):
        def forward(self, x, lengths):
            exact_guide(x + 0 * self.weight, lengths)

    few = x[:9], lengths[:9]
    rows = [
        fit(
            model, Exact(), (x, lengths), validation=few, epochs=1, batch_size=size,
            like_lengths=like, objective=Trace_ELBO(), show_progress=False, device="cpu",
        ).history[0]
        for size, like in ((53, False), (10, True), (10, False))
    ]  # fmt: skip
    losses = [row["loss"] for row in rows]
    # What is measured after an epoch is cut likewise, and sums to the same.
    for name in ("elbo", "validation_elbo"):
        assert rows[1][name] == pytest.approx(rows[0][name], rel=1e-5)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)


def test_it_is_refused_for_data_without_lengths():
    def plain(x):
        return model(x, torch.full((len(x),), x.shape[1]))

    def guide(x):
        return exact_guide(x, torch.full((len(x),), x.shape[1]))

    with pytest.raises(ValueError, match="like_lengths is for sequences with lengths"):
        fit(plain, guide, torch.ones(20, 3), like_lengths=True, show_progress=False)
