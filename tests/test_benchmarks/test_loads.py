"""Invented loads: their patterns, and what makes the machine slower."""

import pytest

from benchmarks.loads import Burners, Spin, default_deadline, load_pattern, slow_down


def test_load_patterns():
    assert load_pattern('none', 5, high=3).tolist() == [1] * 5
    assert load_pattern('steps', 8, high=2, period=4).tolist() == [1, 1, 2, 2] * 2
    assert load_pattern('saw', 8, high=2, period=4).tolist() == [1, 1.25, 1.5, 1.75] * 2
    for name in ('noise', 'spikes'):
        load = load_pattern(name, 1000, high=2)
        assert load.shape == (1000,) and load.min() >= 1 and load.max() <= 2 and load.std() > 0.05
        assert (load == load_pattern(name, 1000, high=2)).all()
        assert (load != load_pattern(name, 1000, high=2, seed=1)).any()
    assert 2 <= (load > 1).sum() <= 25 and set(load) == {1, 2}


@pytest.mark.parametrize(
    'arguments, message',
    [
        (('stairs', 5), "load='stairs': give one of none, steps, saw, noise, spikes"),
        (('steps', 0), 'frames=0'),
        (('steps', 5, 0.5), 'high=0.5'),
        (('steps', 5, 2.0, 1), 'period=1'),
    ],
)
def test_load_patterns_refuse(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_pattern(*arguments)


def test_spin_takes_its_factor():
    now = [0.0]

    def clock():
        now[0] += 0.001
        return now[0]

    slower = Spin(clock)
    slower.at(3.0)
    start = now[0]
    with slower.image('cpu'):
        now[0] += 0.1
    assert now[0] - start == pytest.approx(0.3, abs=0.01)
    slower.at(1.0)
    start = now[0]
    with slower.image('cpu'):
        now[0] += 0.1
    assert now[0] - start == pytest.approx(0.1, abs=0.01)


def test_burners_end_with_their_block():
    with slow_down('processes', 2.0) as slower:
        assert isinstance(slower, Burners)
        slower.at(2.0)
        assert slower.part == 1 and all(process.poll() is None for process in slower.processes)
        with slower.image('cpu'):
            pass
        slower.at(1.0)
    assert all(process.returncode == 0 for process in slower.processes)


def test_the_default_deadline_is_kept_by_the_fastest_under_full_load():
    rows = [dict(latency_p95_ms=30.0), dict(latency_p95_ms=20.0)]
    assert default_deadline(rows, 1.5) == pytest.approx(33.0)
