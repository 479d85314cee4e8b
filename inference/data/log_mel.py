"""``LogMel``: sound as frames of a log-mel spectrogram, and back to its spectrum."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class LogMel:
    """How frames of a log-mel spectrogram are computed from sound.

    A frame is ``log(E |STFT|² + floor)``, with a Hann window, and with E the triangular filters at
    equal distances on the mel scale, 2595 log₁₀(1 + f / 700). A recording of L samples has
    1 + ⌊L / hop⌋ frames.

    >>> tone = torch.sin(2 * math.pi * 1000 * torch.arange(8000) / 8000)
    >>> frames = LogMel()(tone)
    >>> frames.shape
    torch.Size([101, 40])
    >>> LogMel().centres[frames[50].argmax()].round().item()
    992.0
    """

    sample_rate: int = 8000
    """Samples a second."""
    window: int = 256
    """Samples of the window, which is also the length of the Fourier transform."""
    hop: int = 80
    """Samples from one frame to the next."""
    num_mels: int = 40
    floor: float = 1e-5
    """Added to the power, for samples in [−1, 1]: that of silence would be log 0."""

    def __call__(self, samples: Tensor) -> Tensor:
        """Frames (T, num_mels) of a recording (L,) in [−1, 1]."""
        spectrum = self._transform(samples)
        power = spectrum.abs().square()
        return (self.filters.to(power.dtype) @ power + self.floor).log().T

    def _transform(self, samples: Tensor) -> Tensor:
        """The short-time Fourier transform (window // 2 + 1, T) of samples (L,)."""
        return torch.stft(
            samples,
            self.window,
            self.hop,
            window=torch.hann_window(self.window, dtype=samples.dtype),
            pad_mode="constant",
            return_complex=True,
        )

    @property
    def edges(self) -> Tensor:
        """Frequencies in Hz, (num_mels + 2,): filter m rises from edge m to m + 1, and falls."""
        top = 2595 * math.log10(1 + self.sample_rate / 2 / 700)
        mels = torch.linspace(0, top, self.num_mels + 2, dtype=torch.float64)
        return 700 * (10 ** (mels / 2595) - 1)

    @property
    def centres(self) -> Tensor:
        """The frequencies in Hz at which the filters are 1, (num_mels,)."""
        return self.edges[1:-1]

    @cached_property
    def filters(self) -> Tensor:
        """The triangular filters (num_mels, window // 2 + 1), with height 1."""
        bins = torch.linspace(0, self.sample_rate / 2, self.window // 2 + 1, dtype=torch.float64)
        edges = self.edges[:, None]
        rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
        falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
        return torch.minimum(rising, falling).clamp(min=0)

    def power(self, frames: Tensor) -> Tensor:
        """The power |STFT|² (T, window // 2 + 1) that frames (T, num_mels) came from, about.

        It is the least-squares solution, at least 0: what the filters blur is not undone. Phases
        are lost.
        """
        mels = (frames.double().exp() - self.floor).clamp(min=0)
        return (mels @ torch.linalg.pinv(self.filters).T).clamp(min=0)

    def inverse(self, frames: Tensor, *, num_iterations: int = 60, seed: int = 0) -> Tensor:
        """Sound whose frames are close to those given, (hop · (T − 1),).

        The magnitudes are the roots of :meth:`power`. Phases, which frames do not have, start at
        random and are made consistent in turn, by the algorithm of Griffin and Lim.

        Args:
            frames: (T, num_mels), in the units of :meth:`__call__`.
            num_iterations: of the algorithm.
            seed: of the phases at the start.

        Raises:
            ValueError: if there are less than two frames, or they have another number of values.

        Source: Griffin and Lim 1984, Signal estimation from modified short-time Fourier transform.
        """
        frames = torch.as_tensor(frames)
        if frames.dim() != 2 or len(frames) < 2 or frames.shape[1] != self.num_mels:
            raise ValueError(
                f"sound is made of frames (T, {self.num_mels}), two or more, got shape "
                f"{tuple(frames.shape)}"
            )
        magnitude = self.power(frames).sqrt().T
        generator = torch.Generator().manual_seed(seed)
        angle = 2 * math.pi * torch.rand(magnitude.shape, generator=generator, dtype=torch.float64)
        phase = torch.polar(torch.ones_like(magnitude), angle)
        window = torch.hann_window(self.window, dtype=torch.float64)
        length = self.hop * (len(frames) - 1)

        def sound() -> Tensor:
            return torch.istft(
                magnitude * phase, self.window, self.hop, window=window, length=length
            )

        for _ in range(num_iterations):
            phase = self._transform(sound()).sgn()
        return sound()
