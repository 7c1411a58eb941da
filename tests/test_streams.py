"""Random numbers: uniform, unrelated between keys, and the same wherever they are drawn."""

import torch

from objectives.streams import bits, generator, key, permutations, uniform

CPU = torch.device("cpu")


def test_bits_equal_splitmix64() -> None:
    """The reference implementation in Python's integers (Vigna, prng.di.unimi.it/splitmix64.c), seed 1234567."""
    found = [word % 2**64 for word in bits([1234567], 5, device=CPU)[0].tolist()]
    assert found == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_every_bit_is_set_half_of_the_time() -> None:
    words = bits([key(0, "test"), key(1, "test")], 20_000, device=CPU).flatten()
    shares = torch.stack([(words >> i & 1).double().mean() for i in range(64)])
    assert (shares - 0.5).abs().max() < 4.5 * 0.5 / 40_000**0.5


def test_uniform_numbers_fill_the_unit_interval_evenly() -> None:
    numbers = uniform([key(3, "test")], 100_000, device=CPU)[0]
    counts = torch.histc(numbers, bins=100, min=0, max=1)
    chi_square = ((counts - 1000).square() / 1000).sum().item()
    assert chi_square < 160  # 99 degrees of freedom: 1 in 10,000
    assert 0 <= numbers.min() < numbers.max() < 1


def test_slots_numbers_do_not_depend_on_the_others() -> None:
    assert bits([1, 2, 3], 7, device=CPU)[1].equal(bits([2], 7, device=CPU)[0])


def test_keys_differ_by_seed_purpose_and_counter() -> None:
    keys = {key(seed, purpose, counter) for seed in range(10) for purpose in "ab" for counter in range(10)}
    assert len(keys) == 200


def test_permutations_hold_every_number_once() -> None:
    orders = permutations([key(0, "order"), key(1, "order")], 1000, device=CPU)
    assert orders.sort(dim=1).values.equal(torch.arange(1000).expand(2, -1))
    assert not orders[0].equal(orders[1])


def test_generator_repeats_itself() -> None:
    assert torch.rand(3, generator=generator(4, "a")).equal(torch.rand(3, generator=generator(4, "a")))
