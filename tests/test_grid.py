"""A grid of trainings over processes: the encoders of one."""
import pandas as pd, pytest

from sslts_nb.settings import InputError, load_settings
from sslts_nb.market import simulate_market
from sslts_nb.grid import pretrain_grid


@pytest.mark.slow
def test_a_grid_over_two_processes_leaves_the_encoders_of_one(tmp_path):
    "Bit for bit and by name; what cannot be trained is refused before the first training."
    markets = simulate_market(2, end=pd.Timestamp("2024-03-01", tz="UTC")).candles
    markets = {symbol: markets[symbol] for symbol in ("SIM00", "SIM01")}
    def grid(place, given=markets, jobs=None, **changed):
        return pretrain_grid(given, load_settings(
            source="simulated", profile="quick", features="market", methods="ts2vec", folds=2, seeds="0",
            steps=2, hidden=8, dimensions=8, depth=1, crop=64, threads=1, encoders=str(tmp_path/place),
            **changed), jobs)
    def kept(place): return {one.name: one.read_bytes() for one in (tmp_path/place).glob("*.safetensors")}
    alone = grid("one")
    assert [*alone.index.names] == ["symbol", "method", "fold", "seed"] and len(alone) == 4
    pd.testing.assert_frame_equal(grid("two", jobs=2), alone)
    assert len(kept("one")) == 4 and kept("two") == kept("one")
    with pytest.raises(InputError, match="folds"):
        grid("none", {"SIM00": markets["SIM00"], "SIM01": markets["SIM01"].iloc[:40]})
    assert not (tmp_path/"none").exists()
