"""The estimate of the slowdown and the policies, each alone. All numbers are those of the tests."""

import itertools

import numpy as np
import pytest

from mmadn.deploy.policy import DeadlinePolicy, MeanPolicy, Slowdown

MEDIANS = [20.0, 30.0, 40.0]


def estimate(factors, **settings):
    machine = Slowdown(**settings)
    for factor in factors:
        machine.add(factor)
    return machine


def test_the_level_follows_two_images_in_a_row_and_no_single_one():
    assert estimate([1.0] * 20 + [1.5]).level == 1
    assert estimate([1.0] * 20 + [1.5, 1.0, 1.5, 1.0]).level == 1
    assert estimate([1.0] * 20 + [1.5, 1.4]).level == 1.4


@pytest.mark.parametrize('patience', [1, 5, 12])
def test_the_level_sinks_when_the_slow_images_are_forgotten(patience):
    slow = [1.0] * 20 + [1.5] * 20
    assert estimate(slow + [1.0] * (patience - 1), patience=patience).level == 1.5
    assert estimate(slow + [1.0] * patience, patience=patience).level == 1


@pytest.mark.parametrize('sigma, misses', [(0.03, 0.02), (0.03, 0.1), (0.1, 0.05)])
def test_scatter_is_exceeded_by_the_part_that_may_miss(sigma, misses):
    machine, beyond = Slowdown(misses=misses, window=200), []
    for factor in np.exp(np.random.default_rng(0).normal(0, sigma, 4000)):
        beyond.append(factor > machine.level * machine.scatter)
        assert bool(machine.add(factor)) == beyond[-1]
    assert np.mean(beyond) == pytest.approx(misses, rel=0.35)


def test_a_change_of_speed_is_no_scatter():
    factors = ([1.0] * 25 + [1.3] * 25) * 6
    assert estimate(factors).scatter == 1
    assert estimate(factors + [2.0, 1.3, 1.3]).scatter == 1  # one outlier is allowed by 2 % of 100
    assert estimate(factors + [2.6, 1.3, 2.6, 1.3, 1.3]).scatter == pytest.approx(2.0)


def test_the_prior_counts_until_half_a_window_is_measured():
    assert estimate([1.0] * 49, prior=1.2).scatter == 1.2
    assert estimate([1.0] * 50, prior=1.2).scatter == 1
    assert estimate([1.0] * 9, prior=1.2, window=20).scatter == 1.2
    assert estimate([1.0] * 10, prior=1.2, window=20).scatter == 1


def test_factors_above_the_limit_and_discounted_ones_are_no_scatter():
    assert estimate([1.0] * 60 + [5.0, 1.0, 1.0] * 5).scatter == 5
    assert estimate([1.0] * 60 + [5.0, 1.0, 1.0] * 5, limit=4.0).scatter == 1
    machine = estimate([1.0] * 60)
    for _ in range(5):
        assert machine.add(1.5) == 1.5
        machine.discount()
        assert machine.add(1.0) == 0
    assert machine.scatter == 1 and machine.level == 1


def test_now_is_the_mean_of_the_last_two():
    assert estimate([1.0, 3.0, 1.2, 1.6]).now == pytest.approx(1.4)


@pytest.mark.parametrize(
    'level, scatter, depth, overloaded',
    [(1.0, 1.0, 2, False), (1.2, 1.0, 1, False), (1.0, 1.2, 1, False), (1.5, 1.5, 0, True)],
)
def test_the_deepest_depth_that_fits(level, scatter, depth, overloaded):
    policy = DeadlinePolicy(MEDIANS, 44)
    assert (policy.choose(level, scatter), policy.overloaded) == (depth, overloaded)


def test_a_climb_leaves_headroom_and_a_stay_needs_none():
    policy = DeadlinePolicy(MEDIANS, 44, patience=1, headroom=0.05)
    # The deepest takes 40, 40, 43.6, 44.4, 43.6 and 41.6 ms. A climb may take 41.8.
    levels = [1.0, 1.0, 1.09, 1.11, 1.09, 1.04]
    assert [policy.choose(level, 1.0) for level in levels] == [2, 2, 2, 1, 1, 2]


def test_a_surprise_costs_one_image():
    policy = DeadlinePolicy(MEDIANS, 44)
    assert [policy.choose(1.0, 1.0, surprise) for surprise in (0, 0, 1.4, 0, 0)] == [2, 2, 1, 2, 2]
    assert policy.choose(1.0, 1.0, 3.0) == 0 and policy.home == 2


def test_a_surprise_after_a_fall_does_not_count_against_the_depth_that_it_fell_to():
    policy = DeadlinePolicy(MEDIANS, 44)
    images = [(1.0, 0), (1.0, 1.4), (2.0, 0), (2.0, 3.0), (2.0, 0)]
    assert [policy.choose(level, 1.0, surprise) for level, surprise in images] == [2, 1, 0, 0, 0]
    assert not policy.wrong_profile


def visits(policy, levels):
    """At which images the deepest depth begins."""
    depths = [policy.choose(level, 1.0) for level in levels]
    return [i for i, (a, b) in enumerate(itertools.pairwise([0, *depths])) if a < b == 2]


def test_climbs_that_do_not_last_need_a_longer_fit_and_those_that_last_a_shorter_one():
    policy = DeadlinePolicy(MEDIANS, 44, patience=5)
    short, slow = [1.0] * 4, [1.3] * 5
    assert visits(policy, [1.0] * 20 + slow) == [0]
    assert visits(policy, short + slow) == [0]
    assert visits(policy, short + slow) == [1]  # it has to fit for two images now
    assert visits(policy, short + slow) == [2]  # for three
    assert visits(policy, short + slow) == []  # for five
    assert visits(policy, [1.0] * 20 + slow) == [4]
    assert visits(policy, short + slow) == [2]  # for three, after a climb that lasted


def test_a_depth_that_is_slower_than_its_profile_is_given_up():
    policy = DeadlinePolicy(MEDIANS, 44, window=30)
    depths = [policy.choose(1.0, 1.0, surprise) for surprise in (0, 1.3, 0, 1.3)]
    assert depths == [2, 1, 2, 1] and policy.wrong_profile and policy.home == 1
    assert visits(policy, [1.0] * 40) == [30] and not policy.wrong_profile
    assert [policy.choose(1.0, 1.0, surprise) for surprise in (1.3, 0, 1.3)] == [1, 2, 1]
    assert visits(policy, [1.0] * 80) == [60]


def test_the_mean_is_held_by_depths_on_both_sides():
    policy, sum_ms = MeanPolicy(MEDIANS, 33.0), 0.0
    depth = policy.choose(1.0)
    for _ in range(100):
        sum_ms += MEDIANS[depth]
        depth = policy.choose(1.0, MEDIANS[depth] - 33.0)
    assert sum_ms / 100 == pytest.approx(33, abs=0.1) and not policy.overloaded


def test_what_could_not_be_held_is_paid_back_in_part():
    policy = MeanPolicy(MEDIANS, 33.0, patience=4)
    for _ in range(100):
        assert policy.choose(3.0, 60 - 33.0) == 0 and policy.overloaded
    depths = [0]
    for _ in range(10):
        depths.append(policy.choose(1.0, MEDIANS[depths[-1]] - 33.0))
    assert depths[1:4] == [0] * 3 and depths[4] > 0 and not policy.overloaded
