"""The page in a browser without a screen: python tests/browser_page.py FOLDER, for screenshots (`make page`).

Chromium is named by the variable CHROMIUM or found on the path; nothing is installed, and it is spoken to
over its DevTools protocol. Not collected by pytest: it needs a browser."""
import asyncio, base64, json, os, shutil, subprocess, sys, tempfile
from pathlib import Path

import aiohttp

from sslts_nb.settings import load_settings, use_threads
from sslts_nb.market import load_markets
from sslts_nb.bundle import pretrained
from sslts_nb.health import Watch
from sslts_nb.live import Engine, bars_in_order
from sslts_nb.page import serve

HOSTILE = '<img src=x onerror="document.title=1">&amp;'
HOUR = 3_600_000
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless_shell")


def browser_path():
    "Where Chromium is; None: nowhere."
    named = os.environ.get("CHROMIUM")
    if named: return shutil.which(named)
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    "One tab of a browser, and all that it said and asked for."
    def __init__(self, socket):
        self.socket, self.number, self.waiting, self.session, self.target = socket, 0, {}, None, None
        self.errors, self.requests = [], []
        self.listener = asyncio.create_task(self._listen())

    async def _listen(self):
        async for message in self.socket:
            said = json.loads(message.data)
            if "id" in said: self.waiting.pop(said["id"]).set_result(said)
            elif said.get("sessionId") == self.session: self._heard(said["method"], said["params"])

    def _heard(self, method, params):
        if method == "Network.requestWillBeSent": self.requests.append(params["request"]["url"])
        if method == "Runtime.exceptionThrown": self.errors.append(str(params["exceptionDetails"])[:300])
        if method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(str(params["args"]))

    async def call(self, method, **params):
        self.number += 1
        answer = self.waiting[self.number] = asyncio.get_running_loop().create_future()
        message = {"id": self.number, "method": method, "params": params}
        if self.session: message["sessionId"] = self.session
        await self.socket.send_json(message)
        said = await asyncio.wait_for(answer, 60)
        assert "error" not in said, (method, said["error"])
        return said["result"]

    async def open(self, address, width, dark):
        "A new tab of this width, light or dark."
        self.session = None
        if self.target: await self.call("Target.closeTarget", targetId=self.target)
        self.target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        session = await self.call("Target.attachToTarget", targetId=self.target, flatten=True)
        self.session = session["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"): await self.call(f"{domain}.enable")
        await self.call("Emulation.setDeviceMetricsOverride", width=width, height=844 if width < 500 else 900,
                        deviceScaleFactor=2 if width < 500 else 1, mobile=width < 500)
        await self.call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.errors, self.requests = [], []
        await self.call("Page.navigate", url=address)

    async def ask(self, expression):
        "The value of an expression in the page."
        said = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    async def until(self, expression, seconds=20):
        "Wait until an expression is true."
        for _ in range(int(seconds*20)):
            if await self.ask(expression): return
            await asyncio.sleep(0.05)
        raise AssertionError(f"after {seconds} s not true: {expression}")

    async def picture(self, path):
        "The whole page, however long."
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


class Replay:
    "A watch on recorded bars, with a clock that moves when it is told to."
    def __init__(self, copies, silent=("SILENT",)):
        settings = load_settings(source="simulated", end="2024-02-10")
        markets = load_markets(settings, ["SIM00", "SIM01", "SIM02"])
        bundle = pretrained("hours-small")
        names = [f"{symbol}{n or ''}" for n in range(copies) for symbol in markets]
        self.watch = Watch([*names, HOSTILE, *silent], bundle.about)
        self.engine, self.bars = Engine(bundle), {symbol: [*bars_in_order({symbol: candles})]
                                                  for symbol, candles in markets.items()}
        self.copies, self.number, self.now = copies, 0, 0

    def step(self, until):
        "Bars up to this number, and a little time after the last of them."
        for symbol, bars in self.bars.items():
            for number in range(self.number, until):
                bar = bars[number]
                decision, end = self.engine.on_bar(symbol, bar), bar["timestamp"].value//10**6 + HOUR
                for name in self._names(symbol):
                    self.watch.decided(decision | {"symbol": name}, bar, end + 150, 0.0015)
        self.number, self.now = until, end + 1000
        self.watch.connection(True, end)
        self.watch.clock(end, end + 40)

    def _names(self, symbol):
        "One market of the simulation stands for many; one of them has a name that is no name."
        return [f"{symbol}{n or ''}" for n in range(self.copies)] + [HOSTILE]*(symbol == "SIM00")

    def troubled(self):
        "All kinds of trouble at once."
        for name in ("SIM00", "SIM01"):
            close = self.bars[name][self.number]["close"]
            self.watch.price(name, close, self.now + 9*60_000)
        self.now += 10*60_000
        self.watch.counted("rejected", "SIM01", 3)
        self.watch.counted("filled", "SIM00", 2)
        self.watch.sink("decisions.parquet", "No space left on device")


# elements that reach beyond the window's right edge
WIDE = """[...document.querySelectorAll('body *')].filter(one => one.getClientRects().length &&
  one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(one => one.tagName + '.' + one.className)"""

# texts whose colour is too near to what is behind them: less than 4.5, as WCAG 2 computes it
CONTRAST = """(() => {
  const parse = text => [...text.match(/[\\d.]+/g).map(Number), 1];
  const linear = v => v <= .03928 ? v/12.92 : ((v + .055)/1.055)**2.4;
  const light = ([r, g, b]) => .2126*linear(r/255) + .7152*linear(g/255) + .0722*linear(b/255);
  const under = one => {
    for (let at = one; at; at = at.parentElement) {
      const ground = parse(getComputedStyle(at).backgroundColor);
      if (ground[3] > 0) return ground;
    }
    return [255, 255, 255, 1];
  };
  const poor = [];
  for (const one of document.querySelectorAll('body *')) {
    const own = [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!own || !one.getClientRects().length || one.closest('script')) continue;
    const style = getComputedStyle(one), ink = parse(one.closest('svg') ? style.fill : style.color);
    const [a, b] = [light(ink), light(under(one))].sort((x, y) => y - x), ratio = (a + .05)/(b + .05);
    if (ratio < 4.5) poor.push([one.tagName, one.textContent.slice(0, 30), ratio.toFixed(2)]);
  }
  return poor.slice(0, 5);
})()"""

# what each card says
SHOWN = """[...document.querySelectorAll('details')].map(card => {
  const text = name => card.querySelector(name)?.textContent ?? null;
  const texts = name => [...card.querySelectorAll(name)].map(one => one.textContent);
  const value = name => {
    const found = card.querySelector(name);
    return found && found.value !== '' ? Number(found.value) : null;
  };
  const row = name => value(`.rows data.${name}`), pictures = [...card.querySelectorAll('svg[role=img]')];
  return {symbol: text('.symbol'), price: value('.price data'), price_text: text('.price'),
    badge: text('.badge'), volatility: row('volatility'), size: row('size'),
    up: row('up'), down: row('down'), neutral: row('neutral'),
    why: texts('.why li'), trouble: texts('ul.trouble li'), small: text('.small'),
    pictures: pictures.length, labels: pictures.map(one => one.getAttribute('aria-label'))};
})"""


async def holds_what_the_server_says(page, address):
    "Every number and text on the page against state.json."
    async with aiohttp.ClientSession() as client, client.get(address + "state.json") as answer:
        state = await answer.json()
    await page.until(f"latest.now === {state['now']}")
    shown = {one["symbol"]: one for one in await page.ask(SHOWN)}
    assert [*shown] == [market["symbol"] for market in state["markets"]]
    lines = await page.ask("[...document.querySelectorAll('#reasons li')].map(one => one.textContent)")
    assert lines == state["reasons"] + state["warnings"], lines
    verdict = await page.ask("document.getElementById('verdict').textContent")
    assert ("not healthy" in verdict) is not state["healthy"], verdict
    facts = await page.ask("document.getElementById('facts').textContent")
    counts = [f"{what[0].upper()}{what[1:]}{n}" for what, n in state["counts"].items()]
    for text in (state["bundle"]["name"], *counts): assert text in facts, (text, facts)
    for market in state["markets"]: same(market, shown[market["symbol"]])
    return len(shown)


def same(market, card):
    "One market as the server tells it, and its card."
    names = ("price", "volatility", "size", "down", "neutral", "up")
    for name in names if market["ready"] else ("price",):
        assert card[name] == market[name], (name, card, market)
    assert (market["state"] or "no bar yet") in card["badge"], card
    assert card["trouble"] == [f"✕ {reason}" for reason in market["trouble"]], card
    if market["price"] is not None:
        shown = float(card["price_text"].replace(",", ""))
        assert abs(shown/market["price"] - 1) < 1e-5, card
        assert card["pictures"] == 2 and all(card["labels"]), card
        assert f"{market['decided']} bars decided" in card["small"], card
        assert f"prototype {market['prototype']} " in card["small"] or market["prototype"] < 0, card
    for (channel, bars, times), line in zip(market["reasons"], card["why"], strict=True):
        assert line.startswith(f"{channel} over {bars} bar"), line
        shown = float(line.split(": ")[-1].split(" ×")[0].replace(",", ""))
        assert abs(shown/times - 1) < 0.06, line   # two digits of it


async def one_look(page, replay, server, place, width, dark):
    "Open the page, hold it against the server, move the market on, and look again."
    address, name = f"http://127.0.0.1:{server.port}/", place.stem
    await page.open(address, width, dark)
    await page.until("typeof latest === 'object' && latest !== null && cards.size > 0")
    await page.picture(place)
    if replay.copies > 1:
        assert await page.ask("document.querySelectorAll('details[open]').length === 0")
        await page.ask("document.querySelector('#fold').click()")
        await page.until("document.querySelectorAll('details[open]').length === cards.size")
    n_markets = await holds_what_the_server_says(page, address)
    moving = "document.querySelector('#now').textContent + document.querySelector('.price').textContent"
    before = await page.ask(moving)
    replay.step(replay.number + 1)
    await page.until(f"{moving} !== {json.dumps(before)}")
    await holds_what_the_server_says(page, address)
    assert await page.ask(WIDE) == [], f"{name}: wider than the window"
    assert await page.ask("document.documentElement.scrollWidth <= window.innerWidth"), name
    assert await page.ask(CONTRAST) == [], await page.ask(CONTRAST)
    assert await page.ask("document.images.length") == 0
    await sieve(page)
    assert page.errors == [], page.errors
    foreign = [url for url in page.requests if not url.startswith((address, "data:"))]
    assert foreign == [], foreign
    assert sum(url.startswith(address + "state.json") for url in page.requests) > 1
    print(f"{name}, {n_markets} markets: as state.json says, moves on, nothing wider than the window")


async def sieve(page):
    "Markets by their name and their state; nothing is left of it afterwards."
    count = "[...document.querySelectorAll('details')].filter(card => card.getClientRects().length).length"
    write = "{{ const box = $('filter'); box.value = {!r}; box.dispatchEvent(new Event('input')); }}"
    everything = await page.ask(count)
    await page.ask(write.format("sim01"))
    assert await page.ask(count) == everything//3
    await page.ask(write.format("nothing of the kind"))
    assert await page.ask("document.querySelector('#none').getClientRects().length") == 1
    await page.ask(write.format(""))
    await page.ask("$('state-elevated').click()")
    wanted = "latest.markets.filter(one => one.state === 'elevated').length"
    assert await page.ask(count) == await page.ask(wanted)
    await page.ask("$('state-elevated').click()")
    assert await page.ask(count) == everything


async def lost(page, server, folder):
    "The server goes: the page says so."
    await server.close()
    await page.until("document.querySelector('#lost').getClientRects().length === 1", 10)
    text = await page.ask("document.querySelector('#lost').textContent")
    assert "No answer from the page's own server since" in text, text
    await page.picture(folder/"lost.png")
    print("the server stopped:", text)


async def look(socket, folder):
    "All widths and colours: few markets, many, and all well."
    page = Page(socket)
    for name, copies, silent in (("few", 1, ["SILENT"]), ("many", 33, ["SILENT"]), ("well", 1, [])):
        replay = Replay(copies, silent)
        replay.step(450 if silent else 720)
        if silent: replay.troubled()
        server = await serve(replay.watch, clock=lambda: replay.now)
        for width in (390, 1400):
            for dark in (False, True):
                place = folder/f"{name}-{width}-{'dark' if dark else 'light'}.png"
                await one_look(page, replay, server, place, width, dark)
        assert replay.watch.health(replay.now)["healthy"] is not bool(silent)
        await lost(page, server, folder)
    page.listener.cancel()


async def main(folder, look):
    "Start the browser, let `look(socket, folder)` look, end it."
    path = browser_path()
    if path is None:
        named = os.environ.get("CHROMIUM")
        raise SystemExit(f"no browser: {named or 'Chromium'} is not on this machine; wanted one on the path, "
                         "or named by the variable CHROMIUM")
    folder.mkdir(parents=True, exist_ok=True)
    flags = ["--headless=new", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
             "--remote-debugging-port=0"]
    if os.geteuid() == 0: flags.append("--no-sandbox")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:
        process = subprocess.Popen([path, *flags, f"--user-data-dir={own}", "about:blank"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            async with aiohttp.ClientSession() as client:
                address = await devtools(Path(own)/"DevToolsActivePort", process)
                async with client.ws_connect(address, max_msg_size=0) as socket: await look(socket, folder)
        finally:
            process.terminate()
            process.wait(10)
    print(f"screenshots in {folder}")


async def devtools(file, process):
    "The address of the browser's DevTools, when it is there."
    for _ in range(300):
        if process.poll() is not None: raise SystemExit(f"the browser ended with code {process.returncode}")
        if file.exists() and len(lines := file.read_text().split()) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        await asyncio.sleep(0.1)
    raise SystemExit("the browser did not open its DevTools within 30 s")


if __name__ == "__main__":
    use_threads(1)
    asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else "page-screenshots"), look))
