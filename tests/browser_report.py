"""The report of a run in a browser without a screen: python tests/browser_report.py FOLDER [REPORT].

Screenshots of a report, at the width of a phone and of a desk, light and dark, go into FOLDER. Without REPORT
one is made, of a market with a hostile name. Chromium is found as browser_page.py does. Not collected by
pytest: it needs a browser."""
import asyncio, sys, tempfile
from functools import partial
from pathlib import Path

from sslts_nb.settings import use_threads
from sslts_nb.report import save_study

from browser_page import CONTRAST, Page, main
from small_study import HOSTILE, small_study

# elements that reach beyond the window's right edge, but for what scrolls in a box of its own
WIDE = """[...document.querySelectorAll('body *')].filter(one => one.getClientRects().length &&
  !one.parentElement.closest('.scroll') && !one.closest('defs') &&
  one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(one => one.tagName + '.' + one.getAttribute('class'))"""

# the letters of each picture that is shown: height of a capital in pixels, as the outlines are drawn
LETTERS = """[...document.querySelectorAll('figure svg')].filter(one => one.getClientRects().length)
  .map(one =>
  Math.max(...[...one.querySelectorAll('[id*=text_] use')].map(use => use.getBoundingClientRect().height)))"""

# links to a place on the page that is not there
NOWHERE = """[...document.querySelectorAll('a[href^="#"]')].map(one => one.getAttribute('href'))
  .filter(name => !document.querySelector(name))"""

LARGE = "document.querySelector('figure:target svg.wide').getBoundingClientRect()"


async def one_look(page, report, folder, width, dark):
    "The whole page, then a picture of it that opens large and closes again."
    name, address = f"report-{width}-{'dark' if dark else 'light'}", report.resolve().as_uri()
    await page.open(address, width, dark)
    await page.until("document.readyState === 'complete'")
    await page.picture(folder/f"{name}.png")
    assert await page.ask(WIDE) == [], (name, await page.ask(WIDE))
    assert await page.ask("document.documentElement.scrollWidth <= window.innerWidth"), name
    assert await page.ask(CONTRAST) == [], (name, await page.ask(CONTRAST))
    assert await page.ask(NOWHERE) == [], (name, await page.ask(NOWHERE))
    letters = await page.ask(LETTERS)
    assert len(letters) == 4 and min(letters) >= 6, (name, letters)
    ground = await page.ask("getComputedStyle(document.body).backgroundColor")
    assert (ground != "rgb(255, 255, 255)") is dark, ground
    assert await page.ask("[document.title.length > 0, document.scripts.length, document.images.length]") == [
        True, 0, 0]
    await opens_large(page, folder/f"{name}-large.png")
    assert page.errors == [], page.errors
    foreign = [url for url in page.requests if not url.startswith((address, "data:"))]
    assert foreign == [], foreign
    print(f"{name}: nothing wider than the window, letters of {min(letters):.0f} pixels and more")


async def opens_large(page, place):
    "A picture fills the window when it is followed, and leaves it when it is closed."
    await page.ask("document.querySelector('#picture-equity a[role=img]').click()")
    await page.until("document.querySelector('#picture-equity:target') !== null")
    await page.ask("scrollTo(0, 0)")
    box = await page.ask(f"(() => {{ const one = {LARGE}; return [one.width, one.height]; }})()")
    assert min(box) >= 300 and max(box) >= 1190, box
    await page.picture(place)
    await page.ask("document.querySelector('#picture-equity .large').click()")
    await page.until("document.querySelector('figure:target') === null")


async def look(socket, folder, report):
    page = Page(socket)
    for width in (390, 1400):
        for dark in (False, True): await one_look(page, report, folder, width, dark)
    page.listener.cancel()


if __name__ == "__main__":
    use_threads(1)
    shots = Path(sys.argv[1] if len(sys.argv) > 1 else "page-screenshots")
    with tempfile.TemporaryDirectory() as runs:
        given = Path(sys.argv[2]) if len(sys.argv) > 2 else None
        report = given or save_study(small_study(HOSTILE), runs)/"report.html"
        asyncio.run(main(shots, partial(look, report=report)))
