"""One trader, one event after the other, in plain Python: what `sslts_nb.backtest.trade` is held against.

Slow and obvious; shares no code with it."""
import math


def costs_of(units, wanted, price, equity, rate):
    "What a trade to the shares `wanted` of what is left costs: root of left + cost - equity, by bisection."
    cost_if = lambda left: sum(rate[i]*abs(wanted[i]*left - units[i]*price[i]) for i in range(len(units)))
    low, high = 0.0, 2*equity                     # a maker may be paid
    if sum(abs(r*w) for r, w in zip(rate, wanted)) >= 1:
        # costs so large that there can be two solutions, or none: the one that leaves most, from above
        ways = [equity*(1 - way/1000) for way in range(1001)]
        afforded = [left for left in ways if left + cost_if(left) <= equity*(1 + 1e-15)]
        if not afforded: return 0.0
        low, high = afforded[0], min(afforded[0] + equity/1000, equity)
    for _ in range(200):
        middle = (low + high)/2
        if middle + cost_if(middle) > equity: high = middle
        else: low = middle
        if high - low <= 1e-16*abs(equity): break
    return (low + high)/2


class Trader:
    def __init__(self, terms, n_assets):
        self.terms, self.cash, self.units, self.alive = terms, terms.capital, [0.0]*n_assets, True
        self.fee_rate = (1 - terms.maker_share)*terms.taker + terms.maker_share*terms.maker

    def equity(self, price): return self.cash + sum(u*p for u, p in zip(self.units, price))

    def ruined(self, price, slippage):
        "At these prices: close everything if the margin is gone."
        value = sum(abs(u)*p for u, p in zip(self.units, price))
        used_up = self.equity(price) <= self.terms.maintenance*value
        if self.alive and value > 0 and used_up: self.close_all(price, slippage)

    def close_all(self, price, slippage):
        rate = [self.fee_rate + s + self.terms.liquidation_fee for s in slippage]
        cost = sum(abs(u)*p*r for u, p, r in zip(self.units, price, rate))
        self.cash, self.units, self.alive = max(self.equity(price) - cost, 0.0), [0.0]*len(self.units), False

    def pay(self, price, rate):
        paid = sum(u*p*r for u, p, r in zip(self.units, price, rate))
        self.cash -= paid
        return paid

    def trade(self, target, price, slippage):
        "Bring every asset to its share of what is left after the trade; returns value traded, fee, slippage."
        terms, rate = self.terms, [self.fee_rate + s for s in slippage]
        left = costs_of(self.units, target, price, self.equity(price), rate)
        traded, fees, slipped = 0.0, 0.0, 0.0
        if left <= 1e-12*self.equity(price):              # the costs alone take all
            self.cash, self.units, self.alive = 0.0, [0.0]*len(target), False
            return 0.0, 0.0, 0.0
        for i, share in enumerate(target):
            wanted = share*left/price[i]
            if terms.step > 0: wanted = math.trunc(wanted/terms.step*(1 + 1e-12))*terms.step
            order = wanted - self.units[i]
            if abs(order)*price[i] < terms.minimum: continue
            self.units[i] += order
            value = abs(order)*price[i]
            self.cash -= order*price[i] + value*rate[i]
            traded, fees, slipped = traded + value, fees + value*self.fee_rate, slipped + value*slippage[i]
        return traded, fees, slipped

    def worst(self, opened, low, high, slippage):
        "All assets go to their worst price together; bisection finds how far the margin reaches."
        end = [l if u > 0 else h for u, l, h in zip(self.units, low, high)]
        at = lambda way: [o + way*(e - o) for o, e in zip(opened, end)]
        value = lambda price: sum(abs(u)*p for u, p in zip(self.units, price))
        spare = lambda price: self.equity(price) - self.terms.maintenance*value(price)
        if not self.alive or not any(self.units) or spare(at(1.0)) > 0: return
        reach, beyond = 0.0, 1.0
        for _ in range(200):
            middle = (reach + beyond)/2
            if spare(at(middle)) > 0: reach = middle
            else: beyond = middle
        self.close_all(at(beyond), slippage)


def within(target, leverage):
    "The shares, cut to so many times the equity."
    size = sum(map(abs, target))
    return [share*leverage/size for share in target] if size > leverage else target


def in_units(position, bars, terms, renew=None):
    """`position[t][i]` is decided at the close of bar t; `renew[t]`: what is decided is an order anyway.
    `bars[t]` is a dict of lists by asset: open, high, low, close, due, within, slippage.
    Returns by bar: equity, before, traded, fee, slippage, funding, units."""
    n, rows = len(position[0]), []
    trader, before_target = Trader(terms, n), [0.0]*n
    for t, bar in enumerate(bars):
        decided = t - 1 - terms.delay
        wish = list(position[decided]) if decided >= 0 else [0.0]*n
        target = within(wish, terms.leverage)
        row = {"before": 0.0, "traded": 0.0, "fee": 0.0, "slippage": 0.0, "funding": 0.0}

        def maybe_trade(price):
            row["before"] = trader.equity(price) if trader.alive else 0.0
            renewed = renew is not None and decided >= 0 and renew[decided]
            at_risk = any(target) or any(trader.units)
            wants = wish != before_target or renewed if terms.hold == "units" else at_risk
            if not (trader.alive and wants): return
            row["traded"], row["fee"], row["slippage"] = trader.trade(target, price, bar["slippage"])

        row["funding"] += trader.pay(bar["open"], bar["due"])
        trader.ruined(bar["open"], bar["slippage"])
        if terms.execution == "open": maybe_trade(bar["open"])
        row["funding"] += trader.pay(bar["open"], bar["within"])
        if terms.maintenance > 0: trader.worst(bar["open"], bar["low"], bar["high"], bar["slippage"])
        trader.ruined(bar["close"], bar["slippage"])
        if terms.execution == "close": maybe_trade(bar["close"])
        rows.append(row | {"equity": trader.equity(bar["close"]), "units": list(trader.units)})
        before_target = wish
    return rows


def in_shares(position, bars, terms):
    "Equity by bar of @eq-account, in which each position stays the same share of the equity, for free."
    n, equity, held, curve = len(position[0]), terms.capital, [0.0]*len(position[0]), []
    fee = (1 - terms.maker_share)*terms.taker + terms.maker_share*terms.maker
    for t, bar in enumerate(bars):
        decided = t - 1 - terms.delay
        target = list(position[decided]) if decided >= 0 else [0.0]*n
        target = within(target, terms.leverage)

        def live(start, end):
            return max(equity*(1 + sum(h*(e/s - 1) for h, s, e in zip(held, start, end))), 0.0)

        def left():
            cost = sum((fee + s)*abs(new - old) for s, new, old in zip(bar["slippage"], target, held))
            return 1 - min(cost, 1.0)

        if t > 0: equity = live(bars[t - 1]["close"], bar["open"])
        equity *= 1 - sum(h*r for h, r in zip(held, bar["due"]))
        if terms.execution == "open":
            equity *= left()
            held = target
        equity *= 1 - sum(h*r for h, r in zip(held, bar["within"]))
        equity = live(bar["open"], bar["close"])
        if terms.execution == "close":
            equity *= left()
            held = target
        curve.append(equity)
    return curve
