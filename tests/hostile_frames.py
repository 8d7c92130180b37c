"Frames that are no news of a bar, for a client to refuse."
import json


class Raw(bytes):
    "Bytes for the wire, past the websocket's own form."


def text_of(topic, rows, ts, /, **others):
    "A push as the exchange writes it."
    return json.dumps({"topic": topic, "data": rows, "ts": ts, "type": "snapshot"} | others)


def _row(**changes):
    "The row with other values; a function gets the one that is there."
    def frame(topic, row, ts, step):
        changed = {name: new(row, step) if callable(new) else new for name, new in changes.items()}
        return text_of(topic, [row | changed], ts)
    return frame


def _without(name): return lambda topic, row, ts, step: text_of(topic, [_less(row, name)], ts)
def _around(**changes): return lambda topic, row, ts, step: text_of(topic, [row], ts, **changes)
def _fixed(frame): return lambda topic, row, ts, step: frame
def _less(table, name): return {key: value for key, value in table.items() if key != name}
def _bare(word):
    return lambda topic, row, ts, step: text_of(topic, [row | {"close": "@"}], ts).replace('"@"', word)


# each of (topic, row, ts, step): the row has the time of a bar that has closed, and wrong numbers
FRAMES = {
    "torn JSON": lambda topic, row, ts, step: text_of(topic, [row], ts)[:-9],
    "two JSON texts": lambda topic, row, ts, step: text_of(topic, [row], ts)*2,
    "HTML": _fixed("<html>502</html>"), "empty": _fixed(""), "binary": _fixed(bytes(range(256))),
    "no UTF-8": _fixed(Raw(b"\x81\x02\xff\xfe")), "reserved bits": _fixed(Raw(b"\xf3\x01\x00")),
    "huge": lambda topic, row, ts, step: text_of(topic, [row], ts, pad=" "*3_000_000),
    "too huge": lambda topic, row, ts, step: text_of(topic, [row], ts, pad=" "*9_000_000),
    "many rows": lambda topic, row, ts, step: text_of(topic, [row]*10_000, ts),
    "deep": _fixed("["*100_000 + "]"*100_000),
    "deep inside": lambda topic, row, ts, step:
        '{"topic":"%s","ts":%d,"data":%s%s}' % (topic, ts, "["*50_000, "]"*50_000),
    "a list": _fixed("[1,2]"), "a number": _fixed("17"), "null": _fixed("null"), "a text": _fixed('"kline"'),
    "no topic": lambda topic, row, ts, step: json.dumps({"data": [row], "ts": ts, "type": "snapshot"}),
    "topic is a list": _around(topic=["kline", "60"]), "topic is a number": _around(topic=60),
    "topic of no symbol": _around(topic="kline.60.NOSUCHUSDT"),
    "topic of another interval": lambda topic, row, ts, step:
        text_of(topic.replace(".60.", ".5."), [row], ts),
    "another topic": lambda topic, row, ts, step: text_of(topic.replace("kline.60", "tickers"), [row], ts),
    "no data": lambda topic, row, ts, step: json.dumps({"topic": topic, "ts": ts, "type": "snapshot"}),
    "data is null": _around(data=None), "data is a text": _around(data="1"), "no rows": _around(data=[]),
    "data is a row": lambda topic, row, ts, step: text_of(topic, row, ts),
    "a row is null": _around(data=[None]), "a row is a list": _around(data=[[1, 2, 3]]),
    "no ts": lambda topic, row, ts, step: json.dumps({"topic": topic, "data": [row], "type": "snapshot"}),
    "ts is text": lambda topic, row, ts, step: text_of(topic, [row], str(ts)),
    "ts is null": _around(ts=None), "ts is true": _around(ts=True), "ts is negative": _around(ts=-1),
    "ts is infinite": _around(ts=float("inf")), "ts is huge": _around(ts=10**40),
    "start absent": _without("start"), "close absent": _without("close"),
    "confirm absent": _without("confirm"),
    "start is text": _row(start=lambda row, step: str(row["start"])),
    "start is a fraction": _row(start=lambda row, step: row["start"] + 0.5),
    "start is true": _row(start=True), "start is null": _row(start=None), "start is a list": _row(start=[1]),
    "start is huge": _row(start=10**40), "start is negative": _row(start=lambda row, step: -row["start"]),
    "off the grid": _row(start=lambda row, step: row["start"] + 1),
    "far ahead": _row(start=lambda row, step: row["start"] + 1000*step,
                      end=lambda row, step: row["end"] + 1000*step),
    "long past": _row(start=lambda row, step: row["start"] - 20_000*step,
                      end=lambda row, step: row["end"] - 20_000*step),
    "wrong end": _row(end=lambda row, step: row["end"] + 1), "end is text": _row(end="later"),
    "close is null": _row(close=None), "close is a list": _row(close=["1"]),
    "close is true": _row(close=True), "close is no number": _row(close="1,5"),
    "close is empty": _row(close=""), "NaN": _row(close="NaN"), "Infinity": _row(high="Infinity"),
    "bare NaN": _bare("NaN"), "bare Infinity": _bare("Infinity"),
    "1e999": _row(high="1e999"), "bare 1e999": _bare("1e999"),
    "negative": _row(low="-5.0"), "zero": _row(low="0"),
    "high below low": _row(high="0.001"),
    "negative volume": _row(volume="-1"), "NaN volume": _row(volume="nan"),
    "confirm is text": _row(confirm="false"), "confirm is a number": _row(confirm=1),
    "another symbol inside": _row(symbol="OTHERUSDT"), "another interval inside": _row(interval="5"),
    "a shorter bar": _row(interval="5", end=lambda row, step: row["start"] + 299_999)}
