"""Windows with a class: files of the archives, one vector for each, the papers' classifier."""
import hypothesis.extra.numpy as arrays
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings as how, strategies as st
from sslts_nb.settings import InputError, load_settings
from sslts_nb.encoders import DilatedConvEncoder, PatchTransformer
from sslts_nb.instances import (WindowSet, archive, critical_difference, instance_vectors, mean_ranks,
                                padded_windows, read_set, read_ts, scaled_windows, svm_accuracy, write_ts)

HEAD = "# a comment\n@problemName Two\n@univariate false\n@dimensions 2\n@classLabel true a b\n@data\n"
FLOATS = st.floats(width=32, allow_infinity=False, allow_nan=True)


def windows(shapes, seed=0):
    "Noise of these numbers of bars and channels."
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape).astype("float32") for shape in shapes]


@how(max_examples=25, deadline=None)
@given(st.integers(1, 3).flatmap(lambda channels: st.lists(
    st.integers(1, 6).flatmap(lambda bars: arrays.arrays("float32", (bars, channels), elements=FLOATS)),
    min_size=1, max_size=5)))
def test_what_was_written_comes_back_to_the_bit(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("ts")/"set.ts"
    classes = np.array([f"c{number % 2}" for number in range(len(values))])
    write_ts(WindowSet("set", values, classes), path)
    again = read_ts(path)
    assert [*again.classes] == [*classes] and again.channels == values[0].shape[1]
    for ours, theirs in zip(values, again.values, strict=True):
        assert theirs.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs)


def test_comments_blanks_and_missing_values_are_read(tmp_path):
    (tmp_path/"a.ts").write_text(HEAD + "1,?,3:4,5,6:a\n\n# between\n 7:8:b \n")
    found = read_ts(tmp_path/"a.ts")
    np.testing.assert_array_equal(found.values[0], np.array([[1, 4], [np.nan, 5], [3, 6]], "float32"))
    assert [*found.classes] == ["a", "b"] and found.longest == 3 and found.name == "Two"


@pytest.mark.parametrize("text, says", {
    HEAD + "1:2:a\n1,2:3:a\n": "line 8: channels of 1 to 2 values",
    HEAD + "1:2:a\n1,x:3,4:a\n": "line 8, channel 0: could not convert string to float: 'x'",
    HEAD + "1:2:a\n1,2:3,inf:a\n": "line 8, channel 1: an infinite number",
    HEAD + "1:2:a\n\n3:4:c\n": "line 9: ends with 'c'; wanted a class: a, b",
    HEAD + "1:2:a\n3,4,5": "line 8: ends with '3,4,5'; wanted a class",        # cut off
    HEAD + "1:2:3:a\n": "line 7: 3 channels; wanted 2",
    HEAD + ":2:a\n": "line 7, channel 0: could not convert",
    HEAD: "0 windows and 0 classes",
    HEAD.replace("@data", "@seriesLength 2\n@data") + "1:2:a\n": "line 8: 1 values; the header says 2",
    HEAD.replace("@univariate false\n@dimensions 2", "@univariate true") + "1:2:a\n": "2 channels; wanted 1",
    HEAD.replace("@univariate false\n@dimensions 2", "") + "1:2:a\n3:a\n": "1 channels; wanted 2",
    HEAD.replace("true a b", "false") + "1:2\n": "its windows have no classes",
    HEAD.replace("@data", "@timeStamps true\n@data"): "time stamps; wanted values at equal distances",
    "1,2,3\n": "line 1: '1,2,3' before @data", "@problemName x\n": "no line @data in 1 lines"}.items())
def test_a_damaged_file_is_refused_with_its_line(tmp_path, text, says):
    (tmp_path/"a.ts").write_text(text)
    with pytest.raises(InputError) as refused: read_ts(tmp_path/"a.ts")
    assert says in str(refused.value)


def test_no_file_and_no_text_are_refused(tmp_path):
    (tmp_path/"a.ts").write_bytes(b"@data\xff\xfe\x00")
    for name in ("a.ts", "b.ts", "."):
        with pytest.raises(InputError, match="not readable"): read_ts(tmp_path/name)
    with pytest.raises(InputError, match="class 'a:b'"):
        write_ts(WindowSet("x", windows([(2, 1)]), np.array(["a:b"])), tmp_path/"c.ts")
    with pytest.raises(InputError, match="1 windows and 2 classes"):
        WindowSet("x", windows([(2, 1)]), np.array(["a", "b"]))


def test_both_halves_of_a_set_belong_together(tmp_path):
    (tmp_path/"A").mkdir()
    def halves(test, classes):
        write_ts(WindowSet("A", windows([(5, 1)]*2), np.array(["a", "b"])), tmp_path/"A"/"A_TRAIN.ts")
        write_ts(WindowSet("A", test, np.array(classes)), tmp_path/"A"/"A_TEST.ts")
        return read_set(tmp_path, "A")
    assert [len(part.values) for part in halves(windows([(4, 1)]), ["b"])] == [2, 1]
    with pytest.raises(InputError, match="A: class c is in the test alone"): halves(windows([(4, 1)]), ["c"])
    with pytest.raises(InputError, match="1 channels in training, 2 in test"):
        halves(windows([(4, 2)]), ["a"])


def test_the_folder_is_the_one_that_is_set_or_of_an_installed_aeon(tmp_path, monkeypatch):
    assert archive(load_settings(source="sample", ucr=str(tmp_path))) == tmp_path
    with pytest.raises(InputError, match="no such folder; ucr wants one with sets"):
        archive(load_settings(source="sample", ucr=str(tmp_path/"absent")))
    empty = load_settings(source="sample", ucr="")
    (tmp_path/"aeon-9.0.dist-info").mkdir()
    (tmp_path/"aeon-9.0.dist-info"/"METADATA").write_text("Metadata-Version: 2.1\nName: aeon\nVersion: 9.0\n")
    (tmp_path/"aeon").mkdir()
    (tmp_path/"aeon"/"__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert archive(empty) is None                        # an aeon without its data
    (tmp_path/"aeon"/"datasets"/"data").mkdir(parents=True)
    assert archive(empty) == tmp_path/"aeon"/"datasets"/"data"


@pytest.mark.parametrize("encoder", [
    DilatedConvEncoder(2, 8, 6, 2), DilatedConvEncoder(2, 8, 6, 2, causal=False),
    PatchTransformer(2, 8, 6, 1, patch=4, n_patches=3, n_heads=2)], ids=["causal", "symmetric", "patches"])
def test_the_vector_of_a_window_is_that_of_the_window_alone(encoder):
    odd = windows([(bars, 2) for bars in (9, 4, 9, 1, 30, 4, 9)])
    odd[4][3, 1] = np.nan                                # a bar with a missing value
    for how_pooled, pool in {"max": lambda z: z.max(0), "mean": lambda z: z.mean(0),
                             "last": lambda z: z[-1]}.items():
        alone = np.stack([pool(encoder.encode(one)) for one in odd])
        for batch in (1, 2, 64):
            np.testing.assert_allclose(instance_vectors(encoder, odd, how_pooled, batch), alone, atol=2e-5)
    assert encoder.training                              # left as it was


def test_windows_that_cannot_be_meant_are_refused():
    encoder = DilatedConvEncoder(2, 8, 6, 2)
    for given_windows, says in [([], "no windows"), (windows([(5, 3)]), r"this encoder wants \(T, 2\)")]:
        with pytest.raises(InputError, match=says): instance_vectors(encoder, given_windows)
    with pytest.raises(InputError, match="batch"): instance_vectors(encoder, windows([(5, 2)]), batch=0)


def test_the_training_windows_alone_decide_the_scale():
    train, test = windows([(50, 2)]*3), windows([(50, 2)]*3, seed=1)
    scaled = scaled_windows(train, test)
    other = scaled_windows(train, [one*100 for one in test[1:]] + test[:1])
    np.testing.assert_array_equal(scaled[0], other[-1])
    still = [np.column_stack([one[:, 0], np.full(50, 3.)]) for one in train]
    assert np.isfinite(np.concatenate(scaled_windows(still, still))).all()     # a channel that never moves
    assert [len(one) for one in padded_windows(train, 60)] == [60]*3
    assert padded_windows(train, 9)[0] is train[0]


def test_the_classifier_finds_classes_and_none_on_shuffled_labels():
    random = np.random.default_rng(0)
    classes = np.repeat([*"abcd"], 50)
    x = random.standard_normal((200, 5)) + 2.5*(classes[:, None] == np.array([*"abcde"]))
    train = random.permutation(200) < 100
    found = svm_accuracy(x[train], classes[train], x[~train], classes[~train])
    assert found > 0.8
    shuffled = [svm_accuracy(x[train], random.permutation(classes[train]), x[~train], classes[~train])
                for _ in range(4)]
    assert abs(np.mean(shuffled) - 0.25) < 0.12
    few = np.flatnonzero(train)[::3]                      # under fifty: nothing is chosen
    assert svm_accuracy(x[few], classes[few], x[~train], classes[~train]) > 0.6
    with pytest.raises(InputError, match="of one class, a"): svm_accuracy(x, np.full(200, "a"), x, classes)


def test_critical_differences_are_those_of_the_paper():
    # Demsar 2006, table 5: q at 5 %
    for rows, q in {2: 1.960, 5: 2.728, 10: 3.164}.items():
        assert critical_difference(6, rows) == pytest.approx(q*np.sqrt(rows*(rows + 1)/36), abs=2e-3)
    with pytest.raises(InputError, match="ranks of 1 rows on 8 sets"): critical_difference(8, 1)


def test_ranks():
    scores = pd.DataFrame(np.random.default_rng(0).random((40, 4)), columns=[*"abcd"])
    ranks, p = mean_ranks(scores)
    assert ranks.sum() == pytest.approx(10) and p > 0.01 and ranks.is_monotonic_increasing
    ranks, p = mean_ranks(scores + np.array([0, 0, 1, 0]))
    assert ranks.index[0] == "c" and ranks["c"] == 1 and p < 1e-6
    with pytest.raises(InputError, match="a score is missing"): mean_ranks(scores.where(scores < 0.9))
