"""The gated PixelCNN: convolutions that see only the pixels before."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Size, Tensor, nn

from .autoregressive_network import AutoregressiveNetwork
from .layout import read_layout
from .masked_mlp import check_elements
from .mlp import Tanh


class PixelCNN(AutoregressiveNetwork):
    """Gated PixelCNN (van den Oord et al. 2016, arXiv 1606.05328), with z at each layer.

    Pixels are taken row after row, from left to right; the channels of a pixel one after the other.
    With a receptive field of R, the features of a pixel see the pixels before it that are at most R
    rows and R columns away: R rows above, of 2R + 1 pixels each, and R pixels on the left. All of
    these are seen, and no other; of the same pixel, the channels before. With a small R, global
    structure is left to z, as in the variational lossy autoencoder (Chen et al. 2017, arXiv
    1611.02731).

    Each layer has two stacks, so that no pixel is in a blind spot::

        a = V v + A h,           v′ = tanh(a₁) ⊙ σ(a₂)             rows above
        b = U u + W a + B h,     u′ = u + Q (tanh(b₁) ⊙ σ(b₂))     this row, on the left

    with masked convolutions V (rows above) and U (this row), maps W and Q of each pixel, and maps A
    and B of the features h of z. The first layer does not see the pixel itself, and its u′ has no
    u. R is divided among the kernels of the layers.

    To draw x, what was computed for the pixels before is kept: see :meth:`features_in_order`.

    Args:
        event_shape: (height, width) for grey images, or (channels, height, width).
        channels: number of channels of each stack.
        receptive_field: R.
        layers: number of layers.
        features_per_element: number of features for each element, that of the likelihood.
        latent_features: features of z: their number, and they are the same for all pixels; or the
            shape (K, height, width) of a map, given flattened; 0 for a network without z.
        num_classes: C, where elements are classes 0, …, C − 1 and enter as indicators; 0: numbers.

    Raises:
        ValueError: if the receptive field, a width or the number of layers is less than 1, there
            are fewer channels than the image has, the shape of ``latent_features`` does not fit
            the image, or the event shape is not that of an image; when called, if data or features
            of z have another shape.

    >>> network = PixelCNN((8, 8), 16, receptive_field=3, layers=2, latent_features=10)
    >>> network(torch.zeros(5, 8, 8), torch.zeros(5, 10)).shape
    torch.Size([5, 64])
    """

    def __init__(
        self,
        event_shape: tuple[int, ...],
        channels: int = 32,
        *,
        receptive_field: int,
        layers: int = 5,
        features_per_element: int = 1,
        latent_features: int | tuple[int, ...] = 0,
        num_classes: int = 0,
    ):
        super().__init__()
        colours, (height, width) = read_layout(event_shape, 2)
        check_elements(math.prod(event_shape))
        _check_sizes(channels, receptive_field, layers, features_per_element, colours)
        self.event_shape = Size(event_shape)
        self.features_per_element = features_per_element
        self.num_classes = num_classes
        self.receptive_field = receptive_field
        self.image_shape = (colours, height, width)
        self.latent_shape = _latent_shape(latent_features, height, width)
        self.num_latent_features = math.prod(self.latent_shape)
        reaches = [
            receptive_field // layers + (layer < receptive_field % layers)
            for layer in range(layers)
        ]
        self.layers: Sequence[_Layer] = nn.ModuleList(  # pyright: ignore
            _Layer(
                channels, colours, self.latent_shape[0], reach, max(num_classes, 1) * (not layer)
            )
            for layer, reach in enumerate(reaches)
        )
        hidden = torch.arange(channels) % colours
        features = torch.arange(features_per_element * colours) % colours
        self.head = nn.Sequential(
            nn.ReLU(),
            _MaskedConv(_at_pixel(hidden, hidden)),
            nn.ReLU(),
            _MaskedConv(_at_pixel(features, hidden)),
        )

    @property
    def order(self) -> Sequence[int]:
        """Row by row, column by column, channel by channel."""
        places = torch.arange(self.event_shape.numel()).view(self.image_shape)
        return places.permute(1, 2, 0).flatten().tolist()

    def forward(self, x: Tensor, latent: Tensor | None = None) -> Tensor:
        """Data (…, *event_shape), features of z (…, num_latent_features) to features."""
        batch, latent = self._read(x, latent)
        x = x.expand(*batch, *self.event_shape).reshape(math.prod(batch), *self.image_shape)
        x = self._inputs(x)
        # A channel of ones tells a pixel of 0 from the padding beyond the edge (Salimans et al.
        # 2017, arXiv 1701.05517).
        v = u = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        for layer in self.layers:
            k = layer.reach
            v, down = layer.above(F.pad(v, (k, k, k, 0)), layer.biases(latent))
            u = layer.left(F.pad(u, (k, 0, 0, 0)), down)
        return self.head(u).reshape(*batch, self.features_per_element * self.event_shape.numel())

    def _inputs(self, x: Tensor) -> Tensor:
        """Pixels (B, colours, …) as they enter: (B, colours · numbers, …)."""
        like: Tensor = self.head[-1].weight  # pyright: ignore
        return self.read(x, like).movedim(-1, 2).flatten(1, 2)

    def features_in_order(
        self, x: Tensor, latent: Tensor | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Give element after element its features, computing each hidden unit once.

        The first stack is computed a row at a time, when the rows above are complete; the second a
        pixel at a time. See :meth:`AutoregressiveNetwork.features_in_order`.
        """
        batch, latent = self._read(x, latent)
        return _sweep(self, x, batch, latent)

    def _read(self, x: Tensor, latent: Tensor | None) -> tuple[Size, Tensor | None]:
        """The leading shape of both, and the features of z as maps (B, K, 1 or H, 1 or W)."""
        num_batch = x.dim() - len(self.event_shape)
        if num_batch < 0 or x.shape[num_batch:] != self.event_shape:
            raise ValueError(
                f"a PixelCNN of images {tuple(self.event_shape)} got data of shape {tuple(x.shape)}"
            )
        batch, wanted = x.shape[:num_batch], self.num_latent_features
        if latent is None:
            if wanted:
                raise ValueError(
                    f"this PixelCNN takes {wanted} features of z and got none: for a model "
                    "without z build it with latent_features=0"
                )
            return batch, None
        if not wanted or latent.dim() == 0 or latent.shape[-1] != wanted:
            raise ValueError(
                f"this PixelCNN takes {wanted} features of z, but got a tensor of shape "
                f"{tuple(latent.shape)}"
            )
        batch = torch.broadcast_shapes(batch, latent.shape[:-1])
        latent = latent.expand(*batch, wanted)
        return batch, latent.reshape(math.prod(batch), *self.latent_shape)


def _sweep(
    network: PixelCNN, x: Tensor, batch: Size, latent: Tensor | None
) -> Iterator[tuple[int, Tensor]]:
    """The features of pixel after pixel, of rows and pixels that are complete."""
    (colours, height, width), num = network.image_shape, math.prod(batch)
    blank = next(network.parameters()).new_zeros
    layers, places, numbers = network.layers, network.order, max(network.num_classes, 1)
    maps, steps = [y.biases(latent) for y in layers], [y.step() for y in layers]
    hidden, last = [_by_pixels(layer) for layer in network.head if isinstance(layer, _MaskedConv)]
    # The inputs of each layer, with room for the padding: of all rows; and of one row, pixel after
    # pixel with its channels, so that those of a few pixels are neighbours in memory.
    above = [blank(num, y.inputs, height + y.reach, width + 2 * y.reach) for y in layers]
    above[0][:, -1, layers[0].reach :, layers[0].reach : layers[0].reach + width] = 1
    per_element = network.features_per_element
    features = blank(num, per_element, colours, height, width)
    flat = features.view(*batch, per_element * colours * height * width)
    for row in range(height):
        left = [blank(num, width + layer.reach, layer.inputs) for layer in layers]
        left[0][:, layers[0].reach :, -1] = 1
        downs: list[Tensor] = []
        for i, layer in enumerate(layers):
            biases = maps[i]
            if biases is not None and biases.shape[2] > 1:
                biases = biases[:, :, row : row + 1]
            v, down = layer.above(above[i][:, :, row : row + layer.reach + 1], biases)
            downs.append(down[:, :, 0].permute(2, 0, 1).contiguous())  # a column, (B, 2 C)
            if i + 1 < len(layers):
                k = layers[i + 1].reach
                above[i + 1][:, :, row + k, k : k + width] = v[:, :, 0]
        for column in range(width):
            for colour in range(colours):
                u = left[0][:, 0]
                for i, (layer, step) in enumerate(zip(layers, steps, strict=True)):
                    if i:
                        left[i][:, column + layer.reach] = u
                    u = step(left[i][:, column : column + layer.reach + 1], downs[i][column])
                u = F.linear(u.relu(), *hidden).relu()
                features[..., row, column] = F.linear(u, *last).view(num, per_element, colours)
                yield places[(row * width + column) * colours + colour], flat
                pixel = network._inputs(x[..., row, column].reshape(num, colours))
                own = slice(colour * numbers, (colour + 1) * numbers)
                left[0][:, column + layers[0].reach, own] = pixel[:, own]
        k = layers[0].reach
        above[0][:, :, row + k, k : k + width] = left[0][:, k:].transpose(1, 2)


class _Layer(nn.Module):
    """A layer of both stacks, on inputs that are padded by ``reach`` pixels already."""

    def __init__(self, channels: int, colours: int, latent: int, reach: int, numbers: int):
        """``numbers`` of each element of an image, if the layer is the first one, else 0."""
        super().__init__()
        first = numbers > 0
        self.inputs, self.reach, self.first = channels, reach, first
        if first:
            self.inputs = colours * numbers + 1
        # A hidden channel belongs to a channel of the image: it sees those before, and its own.
        # The channel of ones, the last one of the first inputs, is before all.
        groups = torch.arange(channels) % colours
        of_image = torch.arange(colours).repeat_interleave(numbers)
        before = torch.cat([of_image, torch.tensor([-1])]) if first else groups
        above = torch.ones(2 * channels, self.inputs, reach + 1, 2 * reach + 1, dtype=torch.bool)
        above[:, :, -1] = not first  # the first layer's inputs are pixels: none of this row
        left = torch.ones(2 * channels, self.inputs, 1, reach + 1, dtype=torch.bool)
        left[..., -1:] = _at_pixel(groups.repeat(2), before, itself=not first)
        self.rows, self.pixels = _MaskedConv(above), _MaskedConv(left)
        self.down = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.across = _MaskedConv(_at_pixel(groups, groups))
        self.of_latent = nn.Conv2d(latent, 4 * channels, 1, bias=False) if latent else None
        self.tanh = Tanh()

    def biases(self, latent: Tensor | None) -> Tensor | None:
        """What the features of z add, to the first stack and to the second."""
        if latent is None or self.of_latent is None:
            return None
        return self.of_latent(latent)

    def above(self, v: Tensor, biases: Tensor | None) -> tuple[Tensor, Tensor]:
        """The next inputs of the first stack, and what it gives to the second."""
        v = self.rows(v)
        if biases is None:
            down = self.down(v)
        else:
            of_first, of_second = biases.chunk(2, dim=1)
            v = v + of_first
            down = self.down(v) + of_second
        return self._gate(v), down

    def left(self, u: Tensor, down: Tensor) -> Tensor:
        """The next inputs of the second stack."""
        change = self.across(self._gate(self.pixels(u) + down))
        return change if self.first else u[..., self.reach :] + change

    def step(self) -> Callable[[Tensor, Tensor], Tensor]:
        """:meth:`left` of one pixel, as products of matrices, which are made once.

        It takes the inputs of the pixel and of those to its left (B, reach + 1, inputs), and
        ``down`` (B, 2 C), to the next inputs (B, C).
        """
        (weight, bias), across = _by_pixels(self.pixels), _by_pixels(self.across)

        def step(u: Tensor, down: Tensor) -> Tensor:
            values, gates = (F.linear(u.flatten(1), weight, bias) + down).chunk(2, dim=1)
            change = F.linear(values.tanh() * gates.sigmoid(), *across)
            return change if self.first else u[:, -1] + change

        return step

    def _gate(self, features: Tensor) -> Tensor:
        values, gates = features.chunk(2, dim=1)
        return self.tanh(values) * gates.sigmoid()


class _MaskedConv(nn.Conv2d):
    """A convolution without padding, of whose weights only some are connected."""

    connected: Tensor

    def __init__(self, connected: Tensor):
        outputs, inputs, *kernel = connected.shape
        super().__init__(inputs, outputs, tuple(kernel))  # pyright: ignore
        self.register_buffer("connected", connected, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Maps (B, inputs, …) to maps (B, outputs, …)."""
        return F.conv2d(input, self.weight * self.connected, self.bias)


def _by_pixels(convolution: _MaskedConv) -> tuple[Tensor, Tensor | None]:
    """A convolution's weights as a matrix, of pixel after pixel with its channels; and its bias."""
    for hook in convolution._forward_pre_hooks.values():
        hook(convolution, ())  # weight normalization computes the weight only then
    weight = convolution.weight * convolution.connected
    return weight.movedim(1, -1).flatten(1), convolution.bias


def _at_pixel(outputs: Tensor, inputs: Tensor, *, itself: bool = True) -> Tensor:
    """Which outputs see which inputs at the same pixel, by the image's channels that they are of.

    An output of channel c sees inputs of channels before c and, if ``itself``, of c.
    """
    seen = outputs[:, None] >= inputs if itself else outputs[:, None] > inputs
    return seen[:, :, None, None]


def _latent_shape(latent_features: int | tuple[int, ...], height: int, width: int) -> Size:
    """The shape of the features of z as a map."""
    if isinstance(latent_features, int):
        shape = Size((latent_features, 1, 1))
    else:
        shape = Size(latent_features)
        if len(shape) != 3 or shape[1:] != (height, width) or shape[0] < 1:
            raise ValueError(
                f"a map of features of z has the shape (K, {height}, {width}) for images of "
                f"{height} × {width} pixels, got {tuple(latent_features)}"
            )
    if shape[0] < 0:
        raise ValueError(f"latent_features must be 0 or more, got {latent_features}")
    return shape


def _check_sizes(
    channels: int, receptive_field: int, layers: int, features_per_element: int, colours: int
) -> None:
    """Refuse sizes that make no network."""
    if receptive_field < 1:
        raise ValueError(
            f"receptive_field must be at least 1, got {receptive_field}: a pixel that sees none "
            "before it is independent of them given z, and then the likelihood alone is enough"
        )
    if channels < colours:
        raise ValueError(
            f"a PixelCNN of images with {colours} channels needs channels={colours} or more, got "
            f"{channels}"
        )
    if min(layers, features_per_element) < 1:
        raise ValueError(
            "layers and features_per_element must be at least 1, got "
            f"layers={layers}, features_per_element={features_per_element}"
        )
