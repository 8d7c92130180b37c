"""The table of claims: committed as the results give it, every line answered, every link and id there."""
import csv

from house import ROOT
from sslts_nb.claims import claims_table, read_claims
from sslts_nb.results import read_results

BOOK = ROOT/"nbs"


def test_the_committed_table_is_what_the_results_give():
    table = claims_table(read_claims(BOOK/"claims.csv"), read_results(BOOK/"results"))
    with open(BOOK/"results"/"claims.csv", encoding="utf-8", newline="") as file:
        committed = {line.pop("id"): line for line in csv.DictReader(file)}
    assert committed == table.T.to_dict()


def test_every_claim_names_results_and_pages_that_are_there():
    results = read_results(BOOK/"results")
    for one in read_claims(BOOK/"claims.csv"):
        assert all(id in results for id in (one.result, one.beside) if id), one.id
        assert not one.page or (BOOK/f"{one.page}.ipynb").exists(), f"{one.id}: {one.page}"


def test_a_changed_result_changes_the_verdict(tmp_path):
    claims = [one for one in read_claims(BOOK/"claims.csv") if one.rule == "above"]
    results = read_results(BOOK/"results")
    before = claims_table(claims, results).verdict
    for one in claims:
        found = results[one.result]
        results[one.result] = type(found)(**(vars(found) | {"value": -found.value, "low": -found.high,
                                                            "high": -found.low}))
    after = claims_table(claims, results).verdict
    assert set(after[before == "reproduced"]) == {"not reproduced"} and (before == "reproduced").any()
