"""Patch scores: what they learn from, what they say of holes and of too little, and a shape that is wrong."""
import numpy as np, pytest, torch

from sslts_nb.settings import InputError, use_threads
from sslts_nb.encoders import DilatedConvEncoder
from sslts_nb.anomaly import combined_scores, mahalanobis_scores
from sslts_nb.patches import PatchTriplet, memory_bars, patch_encoder, patch_scores, patch_windows

use_threads(1)  # as the book runs; several threads need not agree to the last bit

ENCODER = DilatedConvEncoder(2, 8, 6, 2)


def scores_of(x, train, **options):
    "Raw, shape alone, and by an encoder."
    return {"raw": patch_scores(x, train, **options),
            "shape": patch_scores(x, train, shape_only=True, **options),
            "encoder": patch_scores(x, train, ENCODER, **options)}


def test_what_is_normal_is_learnt_from_the_training_bars():
    rows, train = np.random.default_rng(0).normal(size=(700, 2)), np.arange(400)
    other, learnt = rows.copy(), rows.copy()
    other[400:] = other[400:][::-1]*3
    learnt[100:300] = learnt[100:300][::-1]*2
    for entries in (30, 1000):
        base, changed, retrained = (scores_of(x, train, entries=entries, apart=20)
                                    for x in (rows, other, learnt))
        for name, score in base.items():
            np.testing.assert_array_equal(score[:400], changed[name][:400], err_msg=name)
            assert (score[410:] != retrained[name][410:]).any(), name
            assert np.isfinite(score[3:]).all(), name


@pytest.mark.parametrize("kept", [30, 1000])
def test_a_memory_is_of_known_training_bars(kept):
    vectors = np.random.default_rng(0).normal(size=(500, 3))
    vectors[[5, 80]] = np.nan
    memory = memory_bars(vectors, np.arange(300), kept)
    assert len(memory) <= kept and memory.max() < 300 and (np.diff(memory) > 0).all()
    assert not {5, 80} & {*memory}
    if kept > 300: assert len(memory) == 298
    np.testing.assert_array_equal(memory, memory_bars(vectors, np.arange(300), kept))
    assert kept > 300 or {*memory} != {*memory_bars(vectors, np.arange(300), kept, seed=1)}


def test_with_all_in_memory_training_patches_find_themselves():
    rows, train = np.random.default_rng(0).normal(size=(300, 2)), np.arange(200)
    for name, score in scores_of(rows, train, k=1, entries=999, apart=0).items():
        assert np.nanmax(score[:200]) < 1e-3 < np.nanmedian(score[203:])/10 + 1e-3, name
    for name, score in scores_of(rows, train, k=1, entries=999, apart=1).items():
        assert np.nanmin(score[3:200]) > 1e-6, name


def test_a_wrong_shape_of_usual_values_is_found():
    "A period that runs backwards: values say nothing, patches do, at any level where shape alone counts."
    phase = np.arange(900)*2*np.pi/30
    x = np.stack([np.sin(phase) + 0.4*np.sin(2*phase)], 1)
    x += 0.05*np.random.default_rng(0).normal(size=x.shape)
    strange = x.copy()
    strange[700:730] = x[700:730][::-1]
    train, event = np.arange(500), slice(700, 730 + 15)
    for shape_only in (False, True):
        score = patch_scores(strange, train, length=15, shape_only=shape_only)
        rest = np.delete(score, np.r_[0:14, 700:745])
        assert score[event].max() > 2*rest.max()
    raised = strange.copy()
    raised[600:] += 40                                     # the electrode drifts
    score = patch_scores(raised, train, length=15, shape_only=True)
    again = patch_scores(strange, train, length=15, shape_only=True)
    np.testing.assert_allclose(score[615:], again[615:], atol=1e-4)
    by_value = mahalanobis_scores(strange, train)
    assert by_value[700:730].max() < 1.5*np.delete(by_value, np.r_[700:730]).max()


def test_holes_are_unknown_and_flat_patches_have_a_score():
    x = np.random.default_rng(0).normal(size=(400, 2))
    x[[20, 350], 0], x[360:370] = np.nan, 0.3
    for name, score in scores_of(x, np.arange(300)).items():
        unknown = [0, 1, 2, 20, 21, 22, 23, 350, 351, 352, 353]
        assert np.flatnonzero(np.isnan(score)).tolist() == unknown, name
    shape = patch_windows(x, 4, shape_only=True)
    assert (shape[365] == 0).all()


@pytest.mark.parametrize("x, options, words", [
    (np.full((300, 2), np.nan), {}, "0 known training patches"),
    (np.full((300, 2), 0.1), {}, "all alike"),
    (np.full((300, 2), 0.1), {"shape_only": True}, "all alike"),
    (np.full((300, 2), np.inf), {}, "infinite at bar 0"),
    (np.zeros(300), {}, "of shape"),
    (np.random.default_rng(0).normal(size=(300, 2)), {"k": 0}, "k 0; wanted"),
    (np.random.default_rng(0).normal(size=(300, 2)), {"k": 41, "entries": 40}, "wanted at least 41"),
    (np.random.default_rng(0).normal(size=(300, 2)), {"length": 301}, "length 301 of 300 bars"),
    (np.random.default_rng(0).normal(size=(300, 2)), {"apart": 201}, "that lie 201 bars or more"),
    (np.random.default_rng(0).normal(size=(300, 2)), {"apart": -1}, "apart -1; wanted"),
    (np.random.default_rng(0).normal(size=(300, 2)), {"entries": 0}, "entries 0; wanted")])
def test_what_cannot_be_scored_says_so(x, options, words):
    with pytest.raises(InputError, match=words): patch_scores(x, np.arange(200), **options)


def test_training_sees_the_training_bars_alone_and_changes_the_weights():
    x, train = np.random.default_rng(0).normal(size=(400, 2)), np.arange(200)
    other = x.copy()
    other[200:] *= 9
    first, learnt, again = (patch_encoder(series, train, steps=n, batch_size=8)
                            for series, n in ((x, 0), (x, 3), (other, 3)))
    for a, b in zip(learnt.parameters(), again.parameters()): assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), learnt.parameters()))
    assert not first.training and not learnt.training


def test_the_second_loss_fades():
    "After its steps only the triplets are left; before, what it adds falls with each step."
    x = torch.randn(6, 10, 2, generator=torch.Generator().manual_seed(0))
    task = PatchTriplet(ENCODER, first_steps=4)
    def value(): return float(task.loss(x, torch.Generator().manual_seed(1)).detach())
    values = []
    for _ in range(6): values.append(value()); task.after_step()
    np.testing.assert_allclose(np.diff(values[:5]), np.diff(values)[0], rtol=1e-3)
    assert values[0] > values[4] == values[5]
    with pytest.raises(InputError, match="at least 2, of 10 bars"): task.loss(x[:1], torch.Generator())


def test_it_is_combined_like_the_others():
    x, train = np.random.default_rng(0).normal(size=(500, 2)), np.arange(300)
    scores = {"patches": patch_scores(x, train), "distance": mahalanobis_scores(x, train)}
    together = combined_scores(scores, train)
    assert np.isfinite(together[3:]).all() and np.isnan(together[:3]).all()
