"""Series with known states: their published form, and the benchmark that is cut from them."""
import torch

from sslts_nb.segments import SEGMENT, StateBenchmark, load_states, simulate_states


def test_series_are_finite_and_those_of_their_seed_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    x, states = simulate_states(500, 40, 0)
    assert torch.equal(before, torch.get_rng_state()) and x.isfinite().all()
    again, same = simulate_states(500, 40, 0)
    assert torch.equal(x, again) and torch.equal(states, same)
    assert not torch.equal(x, simulate_states(500, 40, 1)[0])


def test_published_narma_is_a_template():
    x, states = simulate_states(200, 20, 3, template=True)
    segments = x[..., 0].view(200, 20, SEGMENT)
    for state in (1, 3): assert abs(segments[states == state].std(0).mean() - 0.3) < 0.02
    means = [segments[states == state].mean(0) for state in (1, 3)]
    assert (means[0] - means[1]).abs().max() > 0.2


def test_benchmark_is_cut_as_the_paper_cuts_it():
    class Small: forecast_crop = 60
    benchmark = load_states(Small)
    assert benchmark.x.shape == (10, 2000, 3) and benchmark.n_train == 8
    (train, _), (test, states) = benchmark.windows(True), benchmark.windows(False)
    assert train.shape == (320, SEGMENT, 3) and test.shape == (80, SEGMENT, 3)
    assert torch.equal(test[40], benchmark.x[9, :SEGMENT]) and states[41] == benchmark.states[9, 1]
    assert isinstance(benchmark, StateBenchmark)
