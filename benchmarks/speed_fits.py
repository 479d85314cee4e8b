"""Sections of ``speed.py`` that time whole runs: an epoch, evidence, and both against sizes."""

import contextlib
import io
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pyro
import torch
from peers import LATENTE, RATE, ByHand, Case, Tutorial, pair, pyros, pythae_vae
from pyro import infer
from speed_steps import against_size, ratio, straight_line
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from latente.guides import DiagonalNormal
from latente.inference import Data, fit, load_data, log_evidence
from latente.models import VAE, Bernoulli, StandardNormal, mlp

DECODER = (50, 200, 200, 784)
"""The widths of the decoder whose evidence is timed; the encoder's are 784–200–200."""
PRODUCT_ROWS = 2000

Runner = Callable[[Case, Data, int], None]
"""Fits the VAE of a case, from its first weights, for so many epochs."""


def fit_latente(case: Case, data: Data, epochs: int, *, settings: tuple[str, str]) -> None:
    """``latente.inference.fit``, which validates each epoch, and measures 2,000 training rows."""
    compiling, precision = settings
    fit(
        *pair(case),
        data,
        epochs=epochs,
        batch_size=case.batch,
        device=case.device,
        show_progress=False,
        compile=compiling,
        precision=precision,
    )


def fit_by_hand(case: Case, data: Data, epochs: int) -> None:
    """The loop that one would write: the data on the device, shuffled and indexed."""
    module = ByHand(case)
    optimizer = torch.optim.Adam(module.parameters(), lr=RATE, fused=True)
    train, validation = (rows.to(case.device) for rows in (data.train, data.validation))
    for _ in range(epochs):
        order, total = torch.randperm(len(train)).to(case.device), 0.0
        for index in order.split(case.batch):
            optimizer.zero_grad()
            loss = module(torch.bernoulli(train[index]))
            loss.backward()
            optimizer.step()
            total += loss.detach()
        with torch.no_grad():
            sum(float(module(block)) for block in validation.split(4096))


def fit_pyro(case: Case, data: Data, epochs: int) -> None:
    """The loop of Pyro's VAE tutorial, validated each epoch, its bits drawn by the batch.

    The images are tensors in memory, where the tutorial decodes each anew: the faster.
    """
    pyro.clear_param_store()
    module = Tutorial(case)
    adam = pyro.optim.Adam({"lr": RATE})  # pyright: ignore[reportAttributeAccessIssue]
    svi = infer.SVI(module.model, module.guide, adam, loss=pyros(case))
    train, validation = (
        DataLoader(TensorDataset(rows), batch_size=case.batch, shuffle=shuffle)
        for rows, shuffle in ((data.train, True), (data.validation, False))
    )
    with pyro.validation_enabled(False):
        for _ in range(epochs):
            sum(svi.step(torch.bernoulli(x).to(case.device)) for (x,) in train)
            sum(svi.evaluate_loss(x.to(case.device)) for (x,) in validation)


class Resampled(Dataset):
    """Rows as Pythae takes them, one by one, their bits drawn as they are asked for."""

    def __init__(self, rows: Tensor, resample: bool):
        self.rows, self.resample = rows, resample

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        from pythae.data.load_data import DatasetOutput

        row = self.rows[index]
        return DatasetOutput(data=torch.bernoulli(row) if self.resample else row)


def fit_pythae(case: Case, data: Data, epochs: int) -> None:
    """Pythae's ``TrainingPipeline``, its validation and its best model included."""
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainerConfig

    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=epochs,
            learning_rate=RATE,
            per_device_train_batch_size=case.batch,
            per_device_eval_batch_size=case.batch,
            no_cuda=case.device == "cpu",
        )
        pipeline = TrainingPipeline(pythae_vae(case), config)
        logging.disable(logging.INFO)
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            pipeline(Resampled(data.train, True), Resampled(data.validation, False))
        logging.disable(logging.NOTSET)


RUNNERS: dict[str, Runner] = {
    **{name: partial(fit_latente, settings=settings) for name, settings in LATENTE.items()},
    "by hand": fit_by_hand,
    "Pyro": fit_pyro,
    "Pythae": fit_pythae,
}


def seconds_of(run: Callable[[], Any], device: str) -> float:
    """Wall-clock seconds of a run, the device's work included."""
    began = time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def epoch(options: Any, report: Any) -> dict[str, Any]:
    """Seconds of one epoch, (time of 3 epochs − time of 1) / 2, and what a fit costs beside."""
    data = load_data("mnist", binarize="dynamic")
    if options.quick:
        parts = {"train": data.train[:6400], "validation": data.validation[:1000]}
        data = Data(data.name, **parts, test=data.test, binarize="dynamic")
    case = Case(128, 400, device=options.device)
    found: dict[str, Any] = {}
    runners = {name: run for name, run in RUNNERS.items() if name in options.among}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runners}
    for turn in range(1 + (1 if options.quick else 3)):
        for name, run in runners.items():
            one, three = (
                seconds_of(partial(run, case, data, epochs), case.device)
                for epochs in ((1, 1) if turn == 0 else (1, 3))
            )
            if turn:  # the first turn warms up: what is compiled is then in a cache
                times[name].append((one, three))
    each = {name: [(three - one) / 2 for one, three in both] for name, both in times.items()}
    others = [name for name in times if name not in LATENTE]
    rows = []
    for name, seconds in each.items():
        alone = zip(times[name], seconds, strict=True)
        beside = statistics.median(one - taken for (one, _), taken in alone)
        found[name] = {"seconds": seconds, "beside": beside}
        ratios = (f"{ratio(each, name, other):.2f}" for other in others)
        rows.append((name, f"{statistics.median(seconds):.2f}", f"{beside:.2f}", *ratios))
    title = f"One epoch: {len(data.train):,} rows, {len(data.validation):,} to validate on"
    heads = ("", "seconds", "beside, a fit", *(f"÷ {other}" for other in others))
    report.table(title, heads, rows)
    return found


def evidence_pair(device: str) -> tuple[nn.Module, nn.Module]:
    """Model and guide of the evidence; weights are untrained: they cost the same."""
    torch.manual_seed(0)
    latent, *hidden, pixels = DECODER
    guide = DiagonalNormal(mlp(pixels, *hidden, out=2 * latent), latent)
    decoder = mlp(latent, *hidden, out=pixels)
    model = VAE(StandardNormal(latent), decoder, Bernoulli((28, 28)))
    return model.to(device), guide.to(device)


def product_rate(device: str, precision: str) -> float:
    """FLOP/s of the decoder's bare products, with 2,000 rows: the median of some seconds."""
    from latente.inference.execution.precision import layer_precision

    shapes = list(pairwise(DECODER))
    factors = [
        (torch.randn(PRODUCT_ROWS, a, device=device), torch.randn(b, a, device=device).T)
        for a, b in shapes
    ]

    def products() -> None:
        for _ in range(20):
            for left, right in factors:
                left @ right

    with layer_precision(precision), torch.no_grad():
        products()
        times = [seconds_of(products, device) for _ in range(40)]
    flops = 20 * 2 * PRODUCT_ROWS * sum(a * b for a, b in shapes)
    return flops / statistics.median(times)


def evidence(options: Any, report: Any) -> dict[str, Any]:
    """Seconds of ``log_evidence``, and its products' rate against that of bare products."""
    num_samples, num_data = (500, 200) if options.quick else (5000, 1000)
    x = load_data("mnist", binarize="static").test[:num_data].to(options.device)
    model, guide = evidence_pair(options.device)
    products = sum(a * b for a, b in pairwise(DECODER))
    flops = 2 * num_samples * num_data * products
    found, rows = {}, []
    for name in (name for name in LATENTE if name in options.among):
        compiling, precision = LATENTE[name]
        run = partial(log_evidence, model, guide, x, compile=compiling, precision=precision)
        run(num_samples=100)  # what is compiled is then in a cache
        rates = [product_rate(options.device, precision)]
        seconds = seconds_of(lambda run=run: run(num_samples=num_samples), options.device)
        rates.append(product_rate(options.device, precision))
        fraction = flops / seconds / statistics.mean(rates)
        found[name] = {"seconds": seconds, "bare": rates, "fraction": fraction}
        bare = " and ".join(f"{rate / 1e9:.0f}" for rate in rates)
        rows.append(
            (name, f"{seconds:.1f}", f"{flops / seconds / 1e9:.0f}", bare, f"{fraction:.0%}")
        )
    widths = "–".join(map(str, DECODER))
    title = f"Evidence: S = {num_samples:,}, N = {num_data:,}, decoder {widths}"
    heads = ("", "seconds", "GFLOP/s", "bare products, before and after", "fraction")
    report.table(title, heads, rows)
    return found


def scaling(options: Any, report: Any) -> dict[str, Any]:
    """Cost against batch, width, N and S, and the slopes once the fixed cost is taken off."""
    device, quick = options.device, options.quick
    names = [name for name in ("latente", "by hand") if name in options.among]
    found: dict[str, Any] = {}
    batches = [128, 512, 2048] if quick else [128, 256, 512, 1024, 2048, 4096]
    cases = [Case(batch, 400, device=device) for batch in batches]
    found["batch"] = {"sizes": batches, "seconds": against_size(cases, names, options)}
    widths = [100, 400, 1600] if quick else [100, 200, 400, 800, 1600]
    cases = [Case(128, width, device=device) for width in widths]
    found["hidden width"] = {"sizes": widths, "seconds": against_size(cases, names, options)}
    if "latente" in names:
        found["N, one epoch"] = _against_rows(device, quick)
        found["S, 200 data"] = _against_samples(device, quick)
    rows = []
    for what, result in found.items():
        for name, seconds in result["seconds"].items():
            line = straight_line(result["sizes"], seconds)
            result.setdefault("line", {})[name] = line
            sizes = f"{result['sizes'][0]:,} … {result['sizes'][-1]:,}"
            ends = f"{1000 * seconds[0]:.3g} … {1000 * seconds[-1]:.4g}"
            slopes = (f"{line['slope']:.2f}", f"{line['raw_slope']:.2f}")
            straight = (f"{1000 * line['fixed']:.3g}", f"{line['off']:.0%}")
            rows.append((f"{what}: {name}", sizes, ends, *straight, *slopes))
    heads = ("against", "sizes", "ms", "fixed, ms", "off the line", "slope", "with the fixed cost")
    report.table("Cost against size: log–log slopes beyond the fixed cost", heads, rows)
    return found


def _against_rows(device: str, quick: bool) -> dict[str, Any]:
    rows = load_data("mnist", binarize="static").train
    sizes = [2000, 4000, 8000] if quick else [4000, 8000, 16_000, 32_000]
    case = Case(128, 400, device=device)

    def run(size: int) -> None:
        fit(*pair(case), rows[:size], epochs=1, device=device, show_progress=False)

    return {"sizes": sizes, "seconds": {"latente": _medians(run, sizes, device, quick)}}


def _against_samples(device: str, quick: bool) -> dict[str, Any]:
    x = load_data("mnist", binarize="static").test[:200].to(device)
    model, guide = evidence_pair(device)
    sizes = [250, 500, 1000] if quick else [250, 500, 1000, 2000, 4000, 8000]

    def run(size: int) -> None:
        log_evidence(model, guide, x, num_samples=size)

    return {"sizes": sizes, "seconds": {"latente": _medians(run, sizes, device, quick)}}


def _medians(run: Callable[[int], None], sizes: list[int], device: str, quick: bool) -> list[float]:
    """Median seconds of a run of each size, the sizes in turns, after one that warms up."""
    run(sizes[0])
    times: list[list[float]] = [[] for _ in sizes]
    for _ in range(1 if quick else 3):
        for size, taken in zip(sizes, times, strict=True):
            taken.append(seconds_of(partial(run, size), device))
    return [statistics.median(taken) for taken in times]
