"""Augmentation per example and per slot, against a loop in plain Python where there is one."""

import pytest
import torch
from torch import Tensor

from objectives import augment
from objectives.hyperparameters import AUGMENTATION, HyperparameterError, Value
from objectives.numbers import Draws, Numbers
from objectives.streams import key
from tests import toy

IMAGES = torch.randint(1, 256, (30, 3, 8, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
INDEX = torch.arange(30).expand(2, -1)
NUMBERS = tuple(AUGMENTATION)


def draws(*slots: dict[str, Value]) -> Draws:
    roots = torch.tensor([key(seed, "draws") for seed in range(1, len(slots) + 1)])
    numbers = Numbers([toy.full(slot) for slot in slots], NUMBERS, device=roots.device)
    return Draws(numbers=numbers, roots=roots, counts=torch.zeros_like(roots))


def gathered(*slots: dict[str, Value]) -> Tensor:
    return augment.gather(IMAGES, INDEX[: len(slots)], draws(*slots))


def shifted(image: Tensor, dy: int, dx: int) -> Tensor:
    moved = torch.zeros_like(image)
    height, width = image.shape[1:]
    for y in range(height):
        for x in range(width):
            if 0 <= y + dy < height and 0 <= x + dx < width:
                moved[:, y, x] = image[:, y + dy, x + dx]
    return moved


def test_images_are_untouched_without_augmentation() -> None:
    assert gathered({}, {}).equal(IMAGES.expand(2, -1, -1, -1, -1))


def test_examples_are_selected_whatever_their_length_and_type() -> None:
    index = torch.tensor([4, 0, 4])
    for examples in (IMAGES, IMAGES[:, :1, :, :5].contiguous(), IMAGES.flatten(1).float()):
        assert augment.select(examples, index).equal(examples[index])


def test_each_image_is_flipped_or_not_by_itself() -> None:
    flipped = [x.equal(image.flip(2)) for x, image in zip(gathered({"flip": True})[0], IMAGES, strict=True)]
    same = [x.equal(image) for x, image in zip(gathered({"flip": True})[0], IMAGES, strict=True)]
    assert all(f != s for f, s in zip(flipped, same, strict=True))
    assert 5 < sum(flipped) < 25


@pytest.mark.parametrize("flip", [False, True])
def test_each_image_is_shifted_by_itself_black_moving_in(flip: bool) -> None:
    found = set()
    for x, image in zip(gathered({"shift": 2, "flip": flip})[0], IMAGES, strict=True):
        candidates = [
            (mirrored, dy, dx)
            for mirrored in ((False, True) if flip else (False,))
            for dy in range(-2, 3)
            for dx in range(-2, 3)
            if x.equal(shifted(image.flip(2) if mirrored else image, dy, dx))
            or (mirrored and x.equal(shifted(image, dy, dx).flip(2)))
        ]
        assert candidates
        found.add(candidates[0])
    assert len(found) > 10
    assert {dy for _, dy, _ in found} == {dx for _, _, dx in found} == {-2, -1, 0, 1, 2}


@pytest.mark.parametrize("shift", [0, 1])
def test_flipped_both_ways_an_image_shows_one_of_four(shift: int) -> None:
    found = []
    for x, image in zip(gathered({"flip": True, "flip_vertical": True, "shift": shift})[0], IMAGES, strict=True):
        ways = [image, image.flip(1), image.flip(2), image.flip(1, 2)]
        offsets = [(dy, dx) for dy in range(-shift, shift + 1) for dx in range(-shift, shift + 1)]
        matches = [i for i, way in enumerate(ways) if any(x.equal(shifted(way, *each)) for each in offsets)]
        found += matches[:1]
    assert len(found) == len(IMAGES)
    assert set(found) == {0, 1, 2, 3}


def test_each_image_is_turned_by_a_quarter_a_half_three_quarters_or_not() -> None:
    square = IMAGES[:, :, :6]
    turned = augment.gather(square, INDEX[:1], draws({"turn": True}))[0]
    n = [
        [x.equal(image.rot90(n, (1, 2))) for n in range(4)].index(True) for x, image in zip(turned, square, strict=True)
    ]
    assert set(n) == {0, 1, 2, 3}
    with pytest.raises(HyperparameterError, match="as high as wide"):
        augment.check(toy.full({"turn": True}), input_shape=(3, 8, 6))


def test_salt_and_pepper_make_their_part_of_pixels_black_and_white() -> None:
    grey = torch.full((30, 3, 40, 40), 128, dtype=torch.uint8)
    x = augment.gather(grey, INDEX, draws({"salt_pepper": 0.2}, {"salt_pepper": 0.0}))
    assert x[1].equal(grey)
    assert (x[0] == x[0, :, :1]).all()  # all channels of a pixel alike
    for value, part in ((0, 0.1), (255, 0.1), (128, 0.8)):
        assert (x[0] == value).double().mean().item() == pytest.approx(part, abs=0.01)


def test_enlarging_equals_resizing_and_a_random_crop() -> None:
    x = torch.randn(2, 30, 3, 8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = distorted(x, {"enlarge": 3}, {})
    assert y[1].equal(x[1])
    resized = torch.nn.functional.interpolate(x[0], size=(11, 9), mode="bilinear")
    places = set()
    for cut, whole in zip(y[0], resized, strict=True):
        windows = {(i, j): whole[:, i : i + 8, j : j + 6] for i in range(4) for j in range(4)}
        places |= {place for place, window in windows.items() if torch.allclose(cut, window, atol=1e-12)}
    assert len(places) > 8


def test_slots_strengths_and_draws_are_their_own() -> None:
    both = gathered({"shift": 2, "flip": True}, {})
    assert both[1].equal(IMAGES)
    assert both[:1].equal(gathered({"shift": 2, "flip": True}))
    again = gathered({"shift": 2, "flip": True}, {"shift": 2, "flip": True})
    assert not again[0].equal(again[1])


def distorted(x: Tensor, *slots: dict[str, Value]) -> Tensor:
    return augment.distort(x, draws(*slots))


def test_rotation_by_at_most_one_degree_hardly_moves_a_pixel_and_none_where_off() -> None:
    smooth = torch.linspace(-1, 1, 6, dtype=torch.float64).expand(2, 30, 3, 8, 6)
    y = distorted(smooth, {"rotate": 1.0}, {})
    assert y[1].equal(smooth[1])
    inner = (slice(0, 1), slice(None), slice(None), slice(1, -1), slice(1, -1))
    assert 0 < (y - smooth)[inner].abs().max() < 0.05


def test_rotation_keeps_lengths_on_an_oblong_image() -> None:
    """A right angle turns the middle row into the middle column: a bar of one pixel keeps its length."""
    bar = torch.zeros(1, 200, 1, 9, 5, dtype=torch.float64)
    bar[:, :, :, 4, 1:4] = 1
    turned = distorted(bar, {"rotate": 90.0})
    assert (turned.sum(dim=(2, 3, 4)) - 3).abs().max() < 0.6
    spread = torch.arange(9.0, dtype=torch.float64).sub(4).abs()
    reach = (turned.sum(dim=(2, 4)) * spread).amax(dim=2)
    assert 0.9 < reach.max() < 1.1


def test_cutout_blanks_one_square_of_each_image() -> None:
    y = distorted(torch.ones(2, 30, 3, 8, 6), {"cutout": 3}, {})
    assert y[1].eq(1).all()
    holes = (y[0] == 0).all(dim=1)
    sizes = holes.sum(dim=(1, 2))
    assert sizes.max() == 9
    assert sizes.min() >= 4
    assert len({tuple(hole.flatten().tolist()) for hole in holes}) > 10


def test_noise_is_normal_with_the_slots_deviation() -> None:
    y = distorted(torch.zeros(2, 2000, 7, dtype=torch.float64), {"noise": 0.5}, {"noise": 2.0})
    assert y.std(dim=(1, 2)).tolist() == pytest.approx([0.5, 2.0], rel=0.03)
    assert y.mean(dim=(1, 2)).tolist() == pytest.approx([0, 0], abs=0.05)
    assert ((y[0] / 0.5).abs() < 1).double().mean().item() == pytest.approx(0.6827, abs=0.02)


def test_vectors_refuse_augmentation_of_images() -> None:
    with pytest.raises(HyperparameterError, match="flip, shift"):
        augment.check(toy.full({"flip": True, "shift": 1, "noise": 0.1}), input_shape=(7,))
    augment.check(toy.full({"noise": 0.1}), input_shape=(7,))


def test_shift_out_of_the_image_is_refused() -> None:
    with pytest.raises(HyperparameterError, match="shift = 6"):
        augment.check(toy.full({"shift": 6}), input_shape=(3, 8, 6))
