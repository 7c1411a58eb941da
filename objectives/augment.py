"""Augmentation on the device, each example for itself, the strength per slot.

P slots, B examples, C H W image. Shift and flips happen while uint8 images are gathered: one pass over rows, one over
columns. What leaves the image is replaced by black there, as torchvision's RandomCrop does; rotation and cutout, which
come after normalization like enlarging, fill with the mean.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from objectives.hyperparameters import AUGMENTATION, HyperparameterError, Value, number
from objectives.numbers import Draws, Numbers
from objectives.streams import uniform

OF_VECTORS = ("noise", "word_dropout", "word_swap")


def check(hyperparameters: Mapping[str, Value], *, input_shape: tuple[int, ...]) -> None:
    """Refuse augmentation of inputs that are no images, shifts out of the image, and turns of oblong ones.

    Raises:
        HyperparameterError: see above.
    """
    images = len(input_shape) == 3
    if images and (number(hyperparameters, "word_dropout") or number(hyperparameters, "word_swap")):
        raise HyperparameterError("word_dropout, word_swap: an input is an image, not a bag of words. Switch them off.")
    used = [name for name in AUGMENTATION if name not in OF_VECTORS and number(hyperparameters, name)]
    if used and not images:
        raise HyperparameterError(
            f"{', '.join(used)}: an input is a vector {input_shape}, not an image. Switch it off."
        )
    if number(hyperparameters, "shift") >= min(input_shape[1:], default=1e9):
        raise HyperparameterError(f"shift = {hyperparameters['shift']}: must be less than the image, {input_shape}.")
    if hyperparameters["turn"] and input_shape[1] != input_shape[2]:
        raise HyperparameterError(f"turn = true: needs images as high as wide, got {input_shape}. Switch it off.")


def gather(images: Tensor, index_PB: Tensor, draws: Draws) -> Tensor:
    """Return the chosen images (P, B, C, H, W), uint8 like `images` (N, C, H, W): moved, turned, speckled."""
    x = _moved(images, index_PB, draws)
    if draws.numbers.used("turn"):
        x = _turned(x, draws)
    return _speckled(x, draws) if draws.numbers.used("salt_pepper") else x


def _moved(images: Tensor, index_PB: Tensor, draws: Draws) -> Tensor:
    shifts, falls = draws.numbers.used("shift"), draws.numbers.used("flip_vertical")
    index = index_PB.reshape(-1)
    n_channels, height, width = images.shape[1:]
    shape, device = (*index_PB.shape, n_channels, height, width), images.device
    if not shifts and not falls and not draws.numbers.used("flip"):
        return select(images, index).view(shape)
    row, column = (torch.arange(size, device=device).expand(len(index), size) for size in (height, width))
    column = _mirrored(column, "flip", draws, index_PB)
    if not shifts and not falls:
        x = images.index_select(0, index)
        return x.gather(3, _along_width(column, x)).view(shape)
    row = _mirrored(row, "flip_vertical", draws, index_PB)
    row, column = (
        place + _offsets(f"shift {axis}", draws, index_PB) for place, axis in ((row, "rows"), (column, "columns"))
    )
    inside = ((row >= 0) & (row < height)).unsqueeze(2) & ((column >= 0) & (column < width)).unsqueeze(1)
    first = index.unsqueeze(1) * n_channels + torch.arange(n_channels, device=device)
    rows = first.unsqueeze(2) * height + row.clamp_(0, height - 1).unsqueeze(1)
    x = images.view(-1, width).index_select(0, rows.view(-1)).view(-1, n_channels, height, width)
    return x.gather(3, _along_width(column.clamp_(0, width - 1), x)).mul_(inside.unsqueeze(1)).view(shape)


def _mirrored(place: Tensor, name: str, draws: Draws, index_PB: Tensor) -> Tensor:
    """Rows or columns (P * B, size), those of half of the examples from the other end where the slot says so."""
    if not draws.numbers.used(name):
        return place
    coin = _drawn(name, draws, index_PB) < draws.numbers[name].unsqueeze(1) / 2
    return torch.where(coin.view(-1, 1), place.shape[1] - 1 - place, place)


def _turned(x_PBCHW: Tensor, draws: Draws) -> Tensor:
    quarters = (_drawn("turn", draws, x_PBCHW) * 4 * draws.numbers["turn"].unsqueeze(1)).floor_()
    found = x_PBCHW
    for n in (1, 2, 3):
        found = torch.where((quarters == n)[:, :, None, None, None], x_PBCHW.rot90(n, (3, 4)), found)
    return found


def _speckled(x_PBCHW: Tensor, draws: Draws) -> Tensor:
    """Make some pixels black or white, in all their channels."""
    n_slots, n, _, height, width = x_PBCHW.shape
    drawn = uniform(draws.keys("salt_pepper"), n * height * width).view(n_slots, n, 1, height, width)
    half = draws.numbers["salt_pepper"].view(-1, 1, 1, 1, 1) / 2
    return x_PBCHW.masked_fill(drawn < half, 0).masked_fill_(drawn >= 1 - half, 255)


def select(examples: Tensor, index: Tensor) -> Tensor:
    """Return the chosen examples, like `examples` (N, ...): bytes are copied in words of eight where they fit."""
    shape = examples.shape[1:]
    if examples.dtype != torch.uint8 or shape.numel() % 8:
        return examples.index_select(0, index)
    words = examples.view(len(examples), -1).view(torch.int64)
    return words.index_select(0, index).view(torch.uint8).view(-1, *shape)


def words(bags_PBD: Tensor, draws: Draws) -> Tensor:
    """Leave words out of bags, and put others in their place: a feature is a word, which occurs where it is not 0.

    Source: Wei and Zou (2019), "EDA", for random deletion; a swapped word becomes any other, as likely each.
    """
    n, n_words = bags_PBD.shape[1:]
    if draws.numbers.used("word_dropout"):
        drawn = uniform(draws.keys("word_dropout"), n * n_words).view_as(bags_PBD)
        bags_PBD = bags_PBD * (drawn >= draws.numbers["word_dropout"].view(-1, 1, 1))
    if draws.numbers.used("word_swap"):
        drawn = uniform(draws.keys("word_swap"), n * n_words).view_as(bags_PBD)
        leaves = drawn < draws.numbers["word_swap"].view(-1, 1, 1)
        other = (uniform(draws.keys("words"), n * n_words) * n_words).long().view_as(bags_PBD)
        stay = bags_PBD.masked_fill(leaves, 0)
        bags_PBD = stay.scatter_reduce(2, other, bags_PBD.masked_fill(~leaves, 0), "amax")
    return bags_PBD


def distorts(numbers: Numbers) -> bool:
    """Whether any slot has its normalized inputs changed."""
    return any(numbers.used(name) for name in ("enlarge", "rotate", "cutout", "noise"))


def distort(x_PBCHW: Tensor, draws: Draws) -> Tensor:
    """Enlarge and rotate normalized images, cut a square out of them, add noise; vectors (P, B, D) take noise alone."""
    x, numbers = x_PBCHW, draws.numbers
    if numbers.used("enlarge"):
        x = _enlarged(x, draws)
    if numbers.used("rotate"):
        x = _rotated(x, draws)
    if numbers.used("cutout"):
        x = x * _outside_square(x, draws)
    if numbers.used("noise"):
        drawn = uniform(draws.keys("noise"), x[0].numel())
        normal = torch.special.ndtri(drawn.clamp_(min=2.0**-54)).mul_(numbers["noise"].unsqueeze(1))
        x = x + normal.to(x.dtype).view(x.shape)
    return x


def _enlarged(x_PBCHW: Tensor, draws: Draws) -> Tensor:
    """Resize to more pixels, bilinearly, and cut a window of the old size out at a random place."""
    more = draws.numbers["enlarge"].unsqueeze(1)
    lines = []
    for axis, size in (("enlarge columns", x_PBCHW.shape[4]), ("enlarge rows", x_PBCHW.shape[3])):
        start = (_drawn(axis, draws, x_PBCHW) * (more + 1)).floor_()
        scale, middle = size / (size + more), (2 * start - more) / (size + more)
        lines.append(torch.stack([scale.expand_as(middle), middle], dim=2).flatten(0, 1).to(x_PBCHW.dtype))
    zero = torch.zeros_like(lines[0][:, 0])
    first = torch.stack([lines[0][:, 0], zero, lines[0][:, 1]], dim=1)
    theta = torch.stack([first, torch.stack([zero, lines[1][:, 0], lines[1][:, 1]], dim=1)], dim=1)
    return _resampled(x_PBCHW, theta, untouched_P1=more == 0, padding="border")


def _rotated(x_PBCHW: Tensor, draws: Draws) -> Tensor:
    limit_P1 = draws.numbers["rotate"].unsqueeze(1)
    turn = _drawn("rotate", draws, x_PBCHW).mul_(2).sub_(1) * limit_P1
    angle = torch.deg2rad(turn).view(-1).to(x_PBCHW.dtype)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    aspect = x_PBCHW.shape[3] / x_PBCHW.shape[4]
    # the grid runs from -1 to 1 in both directions, whatever the image's height and width
    first = torch.stack([cos, -sin * aspect, zero], dim=1)
    theta = torch.stack([first, torch.stack([sin / aspect, cos, zero], dim=1)], dim=1)
    return _resampled(x_PBCHW, theta, untouched_P1=limit_P1 == 0, padding="zeros")


def _resampled(x_PBCHW: Tensor, theta: Tensor, *, untouched_P1: Tensor, padding: str) -> Tensor:
    """Images seen through the affine maps theta (P * B, 2, 3), bilinearly; those of untouched slots as they are."""
    images = x_PBCHW.flatten(0, 1)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    found = functional.grid_sample(images, grid, padding_mode=padding, align_corners=False)
    return torch.where(untouched_P1[:, :, None, None, None], x_PBCHW, found.view(x_PBCHW.shape))


def _outside_square(x_PBCHW: Tensor, draws: Draws) -> Tensor:
    """Return 0 in a square around a random pixel, cut at the border, 1 elsewhere: (P, B, 1, H, W).

    Source: DeVries and Taylor (2017), arXiv:1708.04552.
    """
    height, width = x_PBCHW.shape[3:]
    hit, side = [], draws.numbers["cutout"].view(-1, 1, 1)
    for axis, size in (("cutout rows", height), ("cutout columns", width)):
        center = (_drawn(axis, draws, x_PBCHW) * size).floor_().unsqueeze(2)
        start = center - (side / 2).floor_()
        place = torch.arange(size, device=x_PBCHW.device)
        hit.append((place >= start) & (place < start + side))
    return (~(hit[0].unsqueeze(3) & hit[1].unsqueeze(2))).to(x_PBCHW.dtype).unsqueeze(2)


def _drawn(purpose: str, draws: Draws, like_PB: Tensor) -> Tensor:
    """A number in [0, 1) for each example (P, B)."""
    return uniform(draws.keys(purpose), like_PB.shape[1])


def _offsets(purpose: str, draws: Draws, index_PB: Tensor) -> Tensor:
    """Whole numbers from -shift to shift, each as likely, (P * B, 1)."""
    limit_P1 = draws.numbers["shift"].unsqueeze(1)
    return ((_drawn(purpose, draws, index_PB) * (2 * limit_P1 + 1)).floor_() - limit_P1).long().view(-1, 1)


def _along_width(column: Tensor, x_BCHW: Tensor) -> Tensor:
    return column[:, None, None, :].expand(x_BCHW.shape)
