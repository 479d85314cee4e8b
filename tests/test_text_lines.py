"""Lines of a text as sequences of tokens, and their vocabulary."""

import gzip

import numpy as np
import pytest
import torch

from latente.inference import load_data
from latente.inference.data.named_datasets import data_root
from latente.inference.data.vocabulary import END, UNKNOWN, Vocabulary, find_vocabulary


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def texts_of(data, part="train"):
    return data.transform.inverse(getattr(data, part))


LINES = ["to be", "or not to be", "that is", "the question", "", "whether", "tis", "nobler"]


def test_characters_are_numbered_and_come_back(tmp_path):
    path = write(tmp_path / "lines.txt", "\n".join(LINES) + "\n")
    data = load_data(path, tokens="characters", validation=0, test=0, split="in-order")
    assert texts_of(data) == [line for line in LINES if line]
    x, lengths = data.rows("train")
    assert x.dtype == lengths.dtype == torch.int64
    assert lengths.tolist() == [len(line) + 1 for line in LINES if line]
    letters = sorted(set("".join(LINES)))
    vocabulary = data.transform.vocabulary
    assert vocabulary.tokens == ("<end>", *letters)
    assert x[0, :5].tolist() == [letters.index(letter) + 1 for letter in "to be"]
    assert not x[0, 5:].any()
    assert data.note == (
        "read 7 lines of characters, vocabulary of 16 tokens, the longest line of 12; 1 empty line "
        "dropped; 7 to fit"
    )


@pytest.mark.parametrize("kind", ["characters", "words"])
def test_compressed_text_bom_and_carriage_returns_are_read_alike(tmp_path, kind):
    text = "\n".join(LINES)
    options = {"tokens": kind, "validation": 0, "test": 0, "min_count": 1}
    plain = load_data(write(tmp_path / "a.txt", text), **options)
    packed = write(tmp_path / "b.TXT.gz", gzip.compress(text.encode()))
    dos = write(tmp_path / "c.txt", b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    listed = load_data([line for line in LINES if line], **options)
    for other in (load_data(packed, **options), load_data(dos, **options), listed):
        assert other.digest() == plain.digest()
        assert other.transform.vocabulary == plain.transform.vocabulary


def test_a_line_feed_alone_ends_a_line(tmp_path):
    path = write(tmp_path / "a.txt", "a\u2028b\x0bc\nd\n\n \t\n")
    data = load_data(path, tokens="characters", validation=0, test=0, split="in-order")
    assert texts_of(data) == ["a\u2028b\x0bc", "d"]
    assert "2 empty lines dropped" in data.note


def test_rare_words_of_the_training_lines_are_unknown(tmp_path):
    lines = ["the cat sat", "the dog sat", "the end", "the fox ran", "a cat ran", "a fox"]
    path = write(tmp_path / "a.txt", "\n".join(lines))
    split = ["train"] * 3 + ["validation", "test", "test"]
    data = load_data(path, tokens="words", split=split)
    # Of the training lines: the 3, sat 2; all others once, or never.
    assert data.transform.vocabulary.tokens == ("<end>", "<unknown>", "the", "sat")
    assert texts_of(data) == ["the <unknown> sat", "the <unknown> sat", "the <unknown>"]
    assert texts_of(data, "test") == ["<unknown> <unknown> <unknown>", "<unknown> <unknown>"]
    assert "fewer than 2 times in the training lines are unknown, 37.5% of them" in data.note
    all_of_them = load_data(path, tokens="words", split=split, min_count=1)
    assert all_of_them.transform.vocabulary.tokens[2:] == ("the", "sat", "cat", "dog", "end")
    x, lengths = data.transform(["the bird sat", "sat"])
    assert x.tolist() == [[2, UNKNOWN, 3, END], [3, END, END, END]]
    assert lengths.tolist() == [4, 2]


def test_a_test_set_is_encoded_by_the_vocabulary_of_the_data(tmp_path):
    path = write(tmp_path / "a.txt", "abc\ncab\nbca\nab\n")
    test = write(tmp_path / "b.txt", "a\ncabbage"[:6])
    data = load_data(path, tokens="characters", test=test, validation=0)
    assert texts_of(data, "test") == ["a", "cabb"]
    assert data.train.shape[1] == data.test.shape[1] == 5
    write(test, "a\nba\nabx\n")
    with pytest.raises(
        ValueError, match=r"in the test set, .*b\.txt has the character 'x' .*line 3"
    ):
        load_data(path, tokens="characters", test=test)
    words = load_data(path, tokens="words", test=test, validation=0, min_count=1)
    assert texts_of(words, "test") == ["<unknown>"] * 3


def test_samples_are_decoded_up_to_their_end():
    vocabulary = Vocabulary("characters", ("<end>", "a", "b"))
    assert vocabulary.decode(np.array([[1, 2, 0, 2], [0, 1, 1, 1], [2, 2, 2, 2]])) == [
        "ab", "", "bbbb"
    ]  # fmt: skip
    data = load_data(["ab", "b", "aab"], tokens="characters", validation=0, test=0)
    x = torch.tensor([[1, 2, 1, 1], [2, 2, 2, 2]])
    assert data.transform.inverse(x, torch.tensor([2, 4])) == ["ab", "bbbb"]
    with pytest.raises(ValueError, match=r"the token 3, which is not .* 0 to 2, in row 1"):
        data.transform.inverse(x + torch.tensor([[0], [1]]))


def test_words_that_look_like_special_tokens():
    vocabulary = find_vocabulary(["a <unknown> <end> a"], "words")
    joined, _ = vocabulary.encode(["<unknown> <end> b"], "x")
    assert joined[0] == joined[2] == UNKNOWN
    assert joined[1] not in (END, UNKNOWN)
    assert vocabulary.tokens[joined[1]] == "<end>"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.txt holds no text$"),
        (b"\n \n\n", "a.txt holds no text: all of its 3 lines are empty"),
        (b"good\nbad \xe9t\xe9\n", "not UTF-8: the byte 0xe9 in line 2, at byte 5 of it: save"),
        (b"\xff\xfea\x00", "not UTF-8: the byte 0xff in line 1, at byte 1"),
    ],
)
def test_what_is_no_text_is_said_in_one_line(tmp_path, content, message):
    path = write(tmp_path / "a.txt", content)
    with pytest.raises(ValueError, match=message) as caught:
        load_data(path, tokens="characters")
    assert "\n" not in str(caught.value)


def test_what_is_left_open_or_does_not_fit_is_refused(tmp_path):
    path = write(tmp_path / "a.txt", "ab\nba\nab\n")
    with pytest.raises(ValueError, match="give tokens='characters' or tokens='words'"):
        load_data(path)
    with pytest.raises(ValueError, match="must be 'characters' or 'words', got 'bytes'"):
        load_data(path, tokens="bytes")
    with pytest.raises(ValueError, match="leave options for tables out"):
        load_data(path, tokens="words", delimiter=",")
    with pytest.raises(ValueError, match="no word is 9 times in the training lines"):
        load_data(path, tokens="words", min_count=9)
    with pytest.raises(ValueError, match="min_count must be at least 1, got 0"):
        load_data(path, tokens="words", min_count=0)
    with pytest.raises(ValueError, match="empty texts in row 1, counted from 0"):
        load_data(["a", " "], tokens="words")
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_data(tmp_path / "none.txt", tokens="words")
    packed = write(tmp_path / "a.txt.gz", gzip.compress(b"ab\n" * 100)[:-9])
    with pytest.raises(ValueError, match=r"cannot be read as \.gz: it is truncated"):
        load_data(packed, tokens="words")


def _real(name):
    path = data_root() / name
    if not path.is_file():
        pytest.skip(f"{path} is not there: set LATENTE_DATA to a folder that has it")
    return path


@pytest.mark.parametrize(
    ("name", "num_lines", "longest", "num_tokens"),
    [("names.txt", 32_033, 15, 27), ("tinyshakespeare.txt", 32_777, 63, 65)],
)
def test_real_text_comes_back_as_it_is(name, num_lines, longest, num_tokens):
    path = _real(name)
    data = load_data(path, tokens="characters", validation=0, test=0, split="in-order")
    lines = [line for line in path.read_text().split("\n") if line.strip()]
    assert texts_of(data) == lines
    assert len(lines) == num_lines
    assert data.train.shape[1] == longest + 1
    assert len(data.transform.vocabulary) == num_tokens


def test_molecules_have_a_test_set_of_their_own():
    path, test = _real("smiles-train.txt.gz"), _real("smiles-test.txt")
    data = load_data(path, tokens="characters", test=test)
    assert [len(data.train), len(data.validation), len(data.test)] == [90_000, 10_000, 10_000]
    assert len(data.transform.vocabulary) == 27
    assert texts_of(data, "test")[:50] == test.read_text().split("\n")[:50]
