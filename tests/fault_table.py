"How a row of the table of faults is written and run: what is given, what is wanted of it."
import numpy as np, pandas as pd, pytest

from sslts_nb.settings import InputError


class Refused(str):
    "Wanted: an `InputError` of one line in which this pattern is found."


def fault(rows, number, given, wanted):
    "Add a row: with `given` (item `number` of the list, + a relative), the function gives `wanted`."
    def add(act):
        rows.append(pytest.param(wanted, act, id=f"{number} {given}"))
        return act
    return add


def check(wanted, act, folder):
    "Run one row in `folder`: refused in one line, or the same answer within a millionth."
    if isinstance(wanted, Refused):
        with pytest.raises(InputError, match=wanted) as caught: act(folder)
        assert len(str(caught.value).splitlines()) == 1, "more than one line"
        return
    answer = act(folder)
    if isinstance(wanted, (pd.DataFrame, pd.Series)): assert answer.equals(wanted)
    elif isinstance(wanted, (float, np.ndarray)):
        np.testing.assert_allclose(answer, wanted, rtol=1e-6, atol=1e-9)
    else: assert answer == wanted
