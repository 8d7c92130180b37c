"""`make bench`: what it names, that a case does the same work in each of its forms, and
that every method's loss is the number of its formula."""
import sys

import pytest
from house import ROOT

sys.path.insert(0, str(ROOT/"benchmarks"))
import bench, plain
from sslts_nb.methods import METHODS


def line(ratio): return {"case": "a case", "ratio plain": ratio}


def test_what_fell_by_more_than_a_quarter_is_named():
    before = {"a/ratio": 4., "b/ratio": 4., "gone/ratio": 2.}
    found = bench.named({"a": line(2.9), "b": line(3.1), "new": line(0.1)}, before)
    assert found == ["a: 2.90 times, 4.00 at the last commit"]


def test_a_case_is_timed_in_turn_and_printed():
    calls = []
    forms = {name: lambda name=name: calls.append(name) for name in ("ours", "plain")}
    one = bench.Case("a", "a case", forms, {"ours": 1., "plain": 10.})
    summary = bench.summary(one, bench.timed(one, 0))
    assert calls == ["ours", "plain"]*4 and summary["ratio plain"] > 0
    assert bench.shown(summary).startswith("a case") and "original" in summary


def test_the_same_id_twice_is_refused():
    bench.case("only once", "a case")(dict)
    with pytest.raises(ValueError, match="only once"): bench.case("only once", "another")(dict)
    del bench.CASES["only once"]


@pytest.mark.parametrize("key", sorted(plain.LOSSES))
def test_a_loss_and_its_gradients_are_those_of_the_formula(key): plain.check_loss(key)


def test_every_method_has_a_plain_form(): assert sorted(plain.LOSSES) == sorted(METHODS)
