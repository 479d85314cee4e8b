"""Sequences of different lengths: lists, padded arrays with lengths, and what is refused."""

import json
import re

import numpy as np
import pytest
import torch

from latente.inference import fit, load_data, log_evidence
from latente.inference.data.same_transform import difference
from latente.inference.data.transform_json import from_json, to_json
from latente.inference.recipes.plan import Plan, complete

from .sequence_pair import TokenGuide, Tokens, WrongGuide, exact_guide, exact_log_px, model


def some_sequences(num=40, seed=0, element=()):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 9, (num,), generator=generator)
    lengths[0] = 9
    return [
        torch.randn(int(length), *element, generator=generator, dtype=torch.float64)
        for length in lengths
    ]


def test_a_list_becomes_padded_rows_with_their_lengths():
    sequences = some_sequences()
    data = load_data(sequences, seed=3)
    assert data.train.dtype == torch.float64
    for part in ("train", "validation", "test"):
        x, lengths = data.rows(part)
        assert lengths.dtype == torch.int64
        assert x.shape == (len(lengths), 9)
        for row, length, number in zip(x, lengths, getattr(data, f"{part}_index"), strict=True):
            assert torch.equal(row[:length], sequences[number])
            assert not row[length:].any()
    total = sum(map(len, sequences))
    assert data.note == f"40 sequences of 1 to 9 steps, {total} in all"


def test_a_padded_array_with_lengths_is_the_same_as_a_list():
    sequences = some_sequences(element=(3,))
    padded = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=np.nan)
    lengths = [len(one) for one in sequences]
    given = load_data(padded, lengths=lengths, seed=1)
    listed = load_data(sequences, seed=1)
    assert given.digest() == listed.digest()
    wider = torch.cat([padded, torch.full((40, 5, 3), 7.0)], 1)
    assert load_data(wider, lengths=lengths, seed=1).digest() == listed.digest()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_whole_numbers_keep_their_type_and_are_not_divided(dtype):
    sequences = [torch.arange(n, dtype=dtype) for n in (3, 200, 5, 4, 3, 3, 7, 9, 8, 6)]
    data = load_data(sequences)
    assert data.train.dtype == torch.int64
    whole = torch.cat([data.train, data.validation, data.test])
    assert whole.max() == 199
    assert data.transform([torch.tensor([1, 2, 3], dtype=dtype)])[0].dtype == torch.int64
    undone = data.transform.inverse(data.train, data.train_context[0])
    assert all(one.dtype == np.int64 for one in undone)
    divided = load_data(sequences, scale=199)
    assert divided.train.dtype == torch.float32
    assert max(float(part.max()) for part in (divided.train, divided.validation, divided.test)) == 1


def test_labels_come_after_the_lengths():
    sequences = some_sequences()
    data = load_data(sequences, labels=np.arange(40) % 3, given="labels", split="by-class")
    _, lengths, labels = data.rows("train")
    assert torch.equal(labels, torch.as_tensor(data.train_index % 3))
    assert [len(sequences[n]) for n in data.train_index] == lengths.tolist()
    new = data.transform(sequences[:2], [0, 2])
    assert [tuple(part.shape) for part in new] == [(2, int(new[1].max())), (2,), (2,)]


def test_standardized_steps_are_those_that_are_there_and_padding_stays_zero():
    sequences = [5 + 3 * one for one in some_sequences(element=(2,))]
    data = load_data(sequences, standardize=True)
    steps = torch.cat([sequences[n] for n in data.train_index])
    torch.testing.assert_close(data.location, steps.mean(0))
    torch.testing.assert_close(data.scale, steps.std(0))
    x, lengths = data.rows("train")
    padding = torch.arange(9) >= lengths[:, None]
    assert padding.any()
    assert not x[padding].any()
    undone = data.transform.inverse(x, lengths)
    for one, number in zip(undone, data.train_index, strict=True):
        np.testing.assert_allclose(one, sequences[number].numpy(), rtol=1e-12)


def test_a_test_set_of_longer_sequences_is_padded_alike():
    data = load_data(some_sequences(), test=[torch.ones(12), torch.ones(2)], validation=0.1)
    assert data.train.shape == (36, 12)
    assert data.test_context[0].tolist() == [12, 2]
    equal = load_data(some_sequences(), test=[torch.ones(4), torch.ones(4)])
    assert equal.test_context[0].tolist() == [4, 4]


def test_new_sequences_may_be_longer_and_are_refused_with_other_elements():
    data = load_data(some_sequences(element=(3,)))
    x, lengths = data.transform([torch.ones(20, 3), torch.ones(20, 3)])
    assert x.shape == (2, 20, 3)
    assert lengths.tolist() == [20, 20]
    with pytest.raises(ValueError, match=r"elements of the sequences of .* shape \(4,\)"):
        data.transform([torch.ones(20, 4), torch.ones(2, 4)])
    with pytest.raises(ValueError, match=r"were sequences of different lengths: give a list"):
        data.transform(torch.ones(2, 9, 3))
    plain = load_data(np.ones((20, 3)) * np.arange(20)[:, None])
    with pytest.raises(ValueError, match="were not sequences of different lengths"):
        plain.transform([torch.ones(2), torch.ones(3)])


def test_the_transform_is_kept_in_json_and_compared():
    data = load_data(some_sequences())
    again = from_json(json.loads(json.dumps(to_json(data.transform))))
    assert again == data.transform
    assert again.has_lengths
    other = load_data(np.random.default_rng(0).normal(size=(20, 9)))
    assert difference(data.transform, other.transform) == "other lengths of sequences"


def test_a_pair_takes_the_data_of_load_data_and_meets_the_exact_evidence():
    data = load_data(some_sequences(60), test=0.4)
    evidence = log_evidence(model, exact_guide, data, num_samples=10)
    torch.testing.assert_close(evidence.log_px, exact_log_px(*data.rows("test")))
    direct = log_evidence(model, exact_guide, some_sequences(60), num_samples=10)
    assert len(direct.log_px) == 60


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ([torch.ones(3), torch.ones(0), torch.ones(2)], {}, "of length 0 in row 1, counted from 0"),
        (np.ones((3, 4)), {"lengths": [1, 0, 2]}, "of length 0 in row 1, counted from 0: drop"),
        (np.ones((3, 4)), {"lengths": [1, -2, 2]}, "of a length below 1 in row 1"),
        (np.ones((3, 4)), {"lengths": [4, 2, 5]}, "its padding, of 4 steps: 5 in row 2, counted"),
        (np.ones((3, 4)), {"lengths": [1, 2]}, r"one number for each of 3 rows, got shape \(2,\)"),
        (np.ones((3, 4)), {"lengths": [1.5, 2, 2]}, "must be whole numbers"),
        (np.ones(3), {"lengths": [1, 1, 1]}, r"padded sequences, an array \(N, T, …\)"),
        ([torch.ones(3), torch.ones(2)], {"lengths": [3, 2]}, "lengths of its own"),
        ([torch.ones(3), torch.ones(2)], {"shape": (3,)}, "leave shape= out"),
        ([torch.ones(3), torch.ones(2)], {"given": [True, False, False]}, "only given='labels'"),
        ([torch.ones(3), torch.tensor([np.nan, 1])], {}, "NaN or infinity in row 1"),
        (np.ones((3, 4)), {"tokens": "characters"}, "tokens= is for a text"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(source, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_data(source, **options)
    assert "\n" not in str(caught.value)


def test_wrong_lengths_given_directly_are_named():
    x = torch.zeros(4, 3)
    for lengths, message in (
        ([1, 2, 0, 3], "data has sequences of length 0 in row 2"),
        ([1, 4, 2, 3], "lengths of data go beyond its padding, of 3 steps: 4 in row 1"),
    ):
        with pytest.raises(ValueError, match=message):
            log_evidence(model, exact_guide, (x, torch.tensor(lengths)), num_samples=5)
        with pytest.raises(ValueError, match=message):
            fit(model, WrongGuide(), (x, torch.tensor(lengths)), epochs=1, show_progress=False)
        given = {"lengths": torch.tensor(lengths), "x": x}
        with pytest.raises(ValueError, match=message):
            log_evidence(model, exact_guide, given, num_samples=5)
    with pytest.raises(ValueError, match="sequences of length 0 in row 1, counted from 0: drop"):
        log_evidence(model, exact_guide, [torch.ones(2), torch.ones(0)], num_samples=5)


def test_tokens_keep_their_type_in_a_fit_and_come_back_as_text():
    texts = ["anna", "bob", "hannah", "otto", "ava", "eve", "elle", "lol", "noon", "kayak"] * 4
    data = load_data(texts, tokens="characters", test=0.25)
    vocabulary = data.transform.vocabulary
    pair = Tokens(len(vocabulary)), TokenGuide()
    run = fit(*pair, data, epochs=3, batch_size=9, show_progress=False, device="cpu")
    assert pair[0].dtypes == {torch.int64}
    assert run.log_evidence(["anna", "b"], num_samples=20).log_px.shape == (2,)
    drawn = run.sample(5, like=["anna", "bob"], seed=1)
    assert len(drawn) == 5
    assert all(set(text) <= set("".join(texts)) for text in drawn)
    assert max(map(len, drawn)) <= 5
    with pytest.raises(ValueError, match=re.escape("the character 'z' (U+007A) in row 1, counted")):
        run.log_evidence(["anna", "zoe"])
    bad = (torch.tensor([[1, 2], [1, 50]]), torch.tensor([2, 2]))
    with pytest.raises(ValueError, match=r"the token 50, which is not .* in row 1, counted from 0"):
        log_evidence(run.model, run.guide, bad, num_samples=5)
    with pytest.raises(ValueError, match=r"the token 50, .* in row 0"):
        run.log_evidence([torch.tensor([50, 0]), torch.tensor([1, 2])])
    with pytest.raises(ValueError, match="another vocabulary"):
        log_evidence(run.model, run.guide, load_data(texts[:9], tokens="words", min_count=1))


def test_a_run_of_another_vocabulary_is_not_resumed(tmp_path):
    texts = ["anna", "bob", "hannah", "otto"] * 5
    data = load_data(texts, tokens="characters", validation=0)
    pair = Tokens(len(data.transform.vocabulary)), TokenGuide()
    fit(*pair, data, epochs=1, show_progress=False, out=tmp_path / "run", device="cpu")
    kept = json.loads((tmp_path / "run" / "config.json").read_text())["transform"]
    assert from_json(kept).vocabulary == data.transform.vocabulary
    other = load_data([text.replace("h", "k") for text in texts], tokens="characters", validation=0)
    with pytest.raises(ValueError, match="text of another vocabulary"):
        fit(*pair, other, epochs=2, show_progress=False, out=tmp_path / "run", resume=True)


@pytest.mark.parametrize("data", ["jsb-chorales", "spoken-digits", "names.txt"])
def test_recipes_for_data_of_one_shape_refuse_sequences(data):
    with pytest.raises(ValueError, match="holds sequences of different lengths, and --levels one"):
        complete(Plan(recipe="vae", data=data), check_files=False)
