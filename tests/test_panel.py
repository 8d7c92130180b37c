"""A network of assets and time: order, absence, causality, names, what is hidden."""
import numpy as np, pytest, torch

from sslts_nb.settings import InputError, use_threads
from sslts_nb.features import assert_causal
from sslts_nb.pretrain import pretrain
from sslts_nb.panel import MaskedPanel, PanelEncoder, PanelFuture, hide_panel, influences

use_threads(1)
N, C, T = 5, 3, 90
WHO = np.arange(1, N + 1)


def encoder(**more):
    "A small one whose ties are not zero."
    made = PanelEncoder(C, N, 8, 6, 2, n_heads=2, **more)
    torch.nn.init.normal_(made.looks[0].ties, 0, 0.3, generator=torch.Generator().manual_seed(1))
    return made


def panel(seed=0, absent=0.1):
    "(T, N, C) noise, some bars absent."
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(T, N, C)).astype("float32")
    x[draw.random((T, N)) < absent] = np.nan
    return x


def vectors(made, x, who=WHO):
    "(T, N, D)."
    return made.encode(x.reshape(len(x), -1), who).reshape(len(x), x.shape[1], -1)


@pytest.mark.parametrize("seed", range(3))
def test_assets_may_come_in_any_order(seed):
    made, x, order = encoder(), panel(seed), np.random.default_rng(seed).permutation(N)
    nobody = np.zeros(N, int)
    for who in (WHO, nobody):
        sorted_after = vectors(made, x, who)[:, order]
        np.testing.assert_allclose(vectors(made, x[:, order], who[order]), sorted_after, atol=1e-5)
    assert np.abs(vectors(made, x, nobody) - vectors(made, x)).max() > 1e-2


def test_what_an_absent_asset_would_have_said_changes_no_bit():
    "Hidden by a mask: whatever stands there, in this and in every later bar."
    made, x = encoder().eval(), torch.tensor(panel(absent=0))[None]
    shown = torch.ones(1, T, N, dtype=torch.bool)
    shown[0, 40:60, 2] = False
    other = x.clone()
    other[0, 40:60, 2] = 100.
    who = torch.tensor(WHO)[None]
    with torch.no_grad(): assert torch.equal(made(x, shown, who), made(other, shown, who))


def test_an_asset_that_is_never_there_might_as_well_not_be():
    made, x = encoder(), panel()
    x[:, 3] = np.nan
    rest = np.arange(N) != 3
    np.testing.assert_allclose(vectors(made, x)[:, rest], vectors(made, x[:, rest], WHO[rest]), atol=1e-5)


def test_an_asset_alone_is_as_without_mixing():
    x = panel()[:, :1]
    apart = encoder(mixing=False)
    all_of_them = vectors(apart, panel())
    np.testing.assert_allclose(vectors(apart, x, WHO[:1])[:, 0], all_of_them[:, 0], atol=1e-5)
    assert np.abs(vectors(encoder(), panel())[:, 0] - all_of_them[:, 0]).max() > 1e-2


@pytest.mark.parametrize("asset", range(N))
def test_another_future_of_one_asset_reaches_no_earlier_vector_of_any(asset):
    made, x = encoder(), panel()
    others = np.delete(x, asset, 1)

    def of_one(series):
        whole = np.insert(others[:len(series)], asset, series, 1)
        return vectors(made, whole).reshape(len(series), -1)

    assert_causal(of_one, x[:, asset], n_points=6)


def test_in_pieces_as_at_once():
    made, x = encoder(), panel()
    whole = made.encode(x.reshape(T, -1), WHO)
    for chunk in (7, 31, 89):
        np.testing.assert_allclose(made.encode(x.reshape(T, -1), WHO, chunk), whole, atol=1e-5)
    assert made.receptive_field == 1 + 4*7 + 4


@pytest.mark.parametrize("n_assets", (2, 3, 10, 25))
@pytest.mark.parametrize("ratio", (0.3, 0.5, 0.75))
def test_the_share_that_is_hidden(n_assets, ratio):
    hidden = hide_panel(200, 160, n_assets, ratio, 8, torch.Generator().manual_seed(0))
    assert abs(hidden.float().mean() - ratio) <= 0.5*8/160 + 1e-6
    assert not hidden.flatten(1).all(1).any()
    assert torch.equal(hidden, hidden.all(1, keepdim=True) | hidden.all(2, keepdim=True))


def planted(bars=3000, weight=0.8):
    "The second asset follows the first, two bars later."
    x = np.random.default_rng(0).normal(size=(bars, 3, 1)).astype("float32")
    x[2:, 1] += weight*x[:-2, 0]
    return x


def test_masked_reconstruction_finds_a_planted_lead():
    x = planted()
    task = MaskedPanel(PanelEncoder(1, 3, 8, 8, 1, n_heads=2, lags=3), block=4)
    pretrain(task, x.reshape(len(x), -1), 150, 8, 32, 0.01, label="")
    windows, who = np.stack([x[at:at + 20] for at in range(0, 2000, 50)]), torch.tensor([1, 2, 3])

    def answer(given, asset):
        shown = torch.ones(given.shape[:3], dtype=torch.bool)
        shown[:, -1, asset] = False
        return task.head(task.encoder(given, shown, who.expand(len(given), -1)))[:, -1, asset, 0]

    found = np.abs(influences(answer, windows, 4))
    found[np.arange(3), np.arange(3)] = 0
    assert np.unravel_index(found.argmax(), found.shape) == (1, 0, 2)
    assert found.max() > 3*np.sort(found.ravel())[-2]


def test_absent_bars_are_no_answers():
    "What is asked for does not depend on bars that are absent."
    x = torch.tensor(panel())[None].flatten(2)
    for task in (MaskedPanel(encoder()), PanelFuture(encoder(), horizons=(1, 5))):
        assert task.loss(x, torch.Generator().manual_seed(0)).isfinite()
        assert task.loss(x*np.nan, torch.Generator().manual_seed(0)) == 0


@pytest.mark.parametrize("make, said", [
    (lambda: PanelEncoder(C, N, 8, n_heads=3), "wanted heads that divide it"),
    (lambda: PanelEncoder(C, 0), "n_assets = 0"), (lambda: MaskedPanel(encoder(), ratio=2.), "ratio = 2"),
    (lambda: MaskedPanel(encoder(), channels=9), "channels = 9"),
    (lambda: PanelFuture(encoder()).loss(torch.zeros(1, 20, N*C), torch.Generator()), "wanted longer"),
    (lambda: encoder().encode(np.zeros((10, 4))), "wants (T, N x 3)"),
    (lambda: encoder().encode(np.zeros((10, 6)), [1, 9]), "0 to 5")])
def test_what_is_refused(make, said):
    with pytest.raises(InputError) as error: make()
    assert said in str(error.value)
