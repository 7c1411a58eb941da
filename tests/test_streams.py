"""Random numbers: uniform, unrelated between keys, and the same wherever they are drawn."""

import torch

from objectives.streams import bits, draws, generator, key, permutation, purposed, uniform

CPU = torch.device("cpu")


def keys(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers)


def test_bits_equal_splitmix64() -> None:
    """The reference implementation in Python's integers (Vigna, prng.di.unimi.it/splitmix64.c), seed 1234567."""
    found = [word % 2**64 for word in bits(keys(1234567), 5)[0].tolist()]
    assert found == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_every_bit_is_set_half_of_the_time() -> None:
    words = bits(keys(key(0, "test"), key(1, "test")), 20_000).flatten()
    shares = torch.stack([(words >> i & 1).double().mean() for i in range(64)])
    assert (shares - 0.5).abs().max() < 4.5 * 0.5 / 40_000**0.5


def test_uniform_numbers_fill_the_unit_interval_evenly() -> None:
    numbers = uniform(keys(key(3, "test")), 100_000)[0]
    counts = torch.histc(numbers, bins=100, min=0, max=1)
    chi_square = ((counts - 1000).square() / 1000).sum().item()
    assert chi_square < 160  # 99 degrees of freedom: 1 in 10,000
    assert 0 <= numbers.min() < numbers.max() < 1


def test_slots_numbers_do_not_depend_on_the_others() -> None:
    assert bits(keys(1, 2, 3), 7)[1].equal(bits(keys(2), 7)[0])


def test_keys_differ_by_seed_purpose_and_counter() -> None:
    on_the_host = {key(seed, purpose, counter) for seed in range(10) for purpose in "ab" for counter in range(10)}
    assert len(on_the_host) == 200
    roots = keys(*(key(seed, "draws") for seed in range(10)))
    drawn = [purposed(draws(roots, keys(count)), purpose) for count in range(10) for purpose in "ab"]
    assert len(set(torch.cat(drawn).tolist())) == 200


def test_words_of_successive_updates_and_of_purposes_are_unrelated() -> None:
    root = keys(key(5, "draws"))
    words = [bits(purposed(draws(root, keys(count)), purpose), 5000)[0] for count in (0, 1) for purpose in "ab"]
    for i, one in enumerate(words):
        for other in words[:i]:
            shares = torch.stack([((one ^ other) >> bit & 1).double().mean() for bit in range(64)])
            assert (shares - 0.5).abs().max() < 4.5 * 0.5 / 5000**0.5
            assert len({*one.tolist(), *other.tolist()}) == 10_000


def test_permutation_holds_every_number_once() -> None:
    orders = [permutation(key(seed, "order"), 1000, device=CPU) for seed in range(2)]
    assert all(order.sort().values.equal(torch.arange(1000)) for order in orders)
    assert not orders[0].equal(orders[1])


def test_generator_repeats_itself() -> None:
    assert torch.rand(3, generator=generator(4, "a")).equal(torch.rand(3, generator=generator(4, "a")))
