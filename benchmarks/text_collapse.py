"""What z is worth in a text VAE: the plain ELBO beside the cures of its collapse.

    python benchmarks/text_collapse.py names [--lines 10000] [--epochs 15] [--cures plain warm-up]

Corpora are of LATENTE_DATA: names, Shakespeare's lines of at most 40 characters, and SMILES. An
LSTM of 64 reads a line into z of 8 dimensions, another one writes it, with z at every step. The
cures are settings: KL warm-up, cycles, free bits of 0.5 nats a dimension, word dropout of 0.5, and
an encoder pretrained as an autoencoder, whose decoder is then drawn anew (Li et al. 2019, arXiv
1909.00868). All fits take as many epochs in all. Figures are of test lines: nats a line, and
perplexity a token, Σ over Σ, the end of a line included.
"""

import argparse
import re
import time

import torch
from smiles import is_valid_smiles
from torch import nn

from latente.guides import DiagonalNormal
from latente.inference import (
    Beta_ELBO,
    Cyclical,
    Warmup,
    evaluate,
    fit,
    latent_information,
    load_data,
    sample_prior,
)
from latente.models import (
    VAE,
    Categorical,
    RecurrentLikelihood,
    RecurrentReader,
    SequenceEncoder,
    StandardNormal,
)

HIDDEN, EMBEDDING, DIM = 64, 32, 8
TESTED, SAMPLES, DRAWN = 300, 100, 500
CORPORA = {
    "names": ("names.txt", 15),
    "shakespeare": ("tinyshakespeare.txt", 40),
    "smiles": ("smiles-train.txt.gz", 60),
}
CURES = ("plain", "warm-up", "cycles", "free-bits", "word-dropout", "pretrained")


def read_lines(corpus, folder, num):
    """Some lines of a corpus, none longer than it says, and no line twice."""
    name, longest = CORPORA[corpus]
    whole = load_data(f"{folder}/{name}", tokens="characters", test=0.0, validation=0.0)
    texts = whole.transform.inverse(whole.train)
    kept = sorted({text for text in texts if len(text) <= longest})
    order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(0))
    return [kept[row] for row in order[:num].tolist()]


def pair(num_tokens, word_dropout=0.0):
    torch.manual_seed(0)
    reader = RecurrentReader(
        (), HIDDEN, cell=nn.LSTM, embed=nn.Embedding(num_tokens, EMBEDDING)
    )  # fmt: skip
    encoder = SequenceEncoder(reader, nn.Linear(HIDDEN, 2 * DIM), end=0)
    likelihood = RecurrentLikelihood(
        Categorical((), num_tokens), HIDDEN, latent_features=DIM, cell=nn.LSTM, end=0,
        embed=nn.Embedding(num_tokens, EMBEDDING), word_dropout=word_dropout,
    )  # fmt: skip
    return VAE(StandardNormal(DIM), nn.Identity(), likelihood), DiagonalNormal(encoder, DIM)


def fitted(cure, data, epochs):
    """A pair fitted with one cure, or with none."""
    model, guide = pair(
        len(data.transform.vocabulary), word_dropout=0.5 if cure == "word-dropout" else 0.0
    )
    settings = {
        "batch_size": 128, "learning_rate": 3e-3, "like_lengths": True, "compile": "plain",
        "seed": 0, "show_progress": False,
    }  # fmt: skip
    free = Beta_ELBO(free_bits=0.5)
    objective = {
        "warm-up": Beta_ELBO(Warmup(epochs / 2)),
        "cycles": Beta_ELBO(Cyclical(epochs / 3)),
        "free-bits": free,
        "pretrained": free,
    }.get(cure, Beta_ELBO())
    if cure == "pretrained":
        fit(model, guide, data, objective=Beta_ELBO(beta=0), epochs=epochs // 3, **settings)
        model.likelihood.reset_parameters()
        epochs -= epochs // 3
    fit(model, guide, data, objective=objective, epochs=epochs, **settings)
    return model, guide


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", choices=CORPORA)
    parser.add_argument("--folder", default="../shared/data")
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--cures", nargs="+", choices=CURES, default=CURES)
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = read_lines(args.corpus, args.folder, args.lines)
    data = load_data(lines, tokens="characters", validation=0.0, test=0.1, seed=0)
    print(f"{args.corpus}: {data.note}; {args.epochs} epochs", flush=True)
    test = tuple(part[:TESTED] for part in data.rows("test"))
    print(
        "| cure | active units | KL | I(x; z) | ELBO | log p(x) | perplexity | of the ELBO | "
        "without the KL | minutes |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    written = {}
    for cure in args.cures:
        began = time.process_time()
        model, guide = fitted(cure, data, args.epochs)
        minutes = (time.process_time() - began) / 60
        found = evaluate(model, guide, test, num_samples=SAMPLES)
        information = latent_information(model, guide, test)
        print(
            f"| {cure} | {found['active_units']:.0f} of {DIM} | {found['kl']:.2f} | "
            f"{information.mutual_information:.2f} | {found['elbo']:.2f} | "
            f"{found['log_evidence']:.2f} ± {found['log_evidence_se']:.2f} | "
            f"{found['perplexity']:.2f} | {found['perplexity_elbo']:.2f} | "
            f"{found['perplexity_reconstruction']:.2f} | {minutes:.1f} |",
            flush=True,
        )
        drawn = sample_prior(model, guide, DRAWN, test, seed=1)[1]
        written[cure] = data.transform.inverse(drawn.long())
    known = set(data.transform.inverse(data.train))
    for cure, texts in written.items():
        distinct, new = len(set(texts)) / len(texts), len(set(texts) - known) / len(set(texts))
        said = f"{cure}: {distinct:.0%} of {len(texts)} draws distinct, {new:.0%} of these new"
        if args.corpus == "smiles":
            said += f", {sum(map(is_valid_smiles, texts)) / len(texts):.0%} of all well formed"
        print(f"{said}: {'; '.join(re.sub(' +', ' ', text) for text in texts[:4])}", flush=True)


if __name__ == "__main__":
    main()
