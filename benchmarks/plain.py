"""What the papers' code does, written from the formulas: the network layer by layer and at every bar, a table
for each contrast, a loop where the formula has a sum. Each loss takes the same draws as the package's and is
the same number, which `make bench` checks before it times them."""
from itertools import permutations

import torch
import torch.nn.functional as F
from torch import nn

from sslts_nb.augmentations import RandomChoice, frequency_mask, random_crops
from sslts_nb.methods import make_task
from sslts_nb.contrasts import VIEWS, named_view
from sslts_nb.cost import random_view
from sslts_nb.mae import hidden_bars
from sslts_nb.ts2vec import draw_mask


class PlainNetwork(nn.Module):
    "The dilated convolutions, layer by layer, symmetric or causal; it takes its weights from ours."
    def __init__(self, ours):
        super().__init__()
        self.ours = getattr(ours, "backbone", ours)   # CoST's lies within its encoder

    def forward(self, x, mask=None):
        there = ~x.isnan().any(2)
        if mask is not None: there = there & mask
        h = F.linear(x.nan_to_num(), self.ours.project.weight, self.ours.project.bias)
        h = (h*there.unsqueeze(2)).transpose(1, 2)
        for block in self.ours.blocks:
            y = h
            for one in (block.first, block.second):
                y = F.conv1d(F.pad(F.gelu(y), one.pad), one.weight, one.bias, dilation=one.dilation[0])
            same = isinstance(block.shortcut, nn.Identity)
            h = y + (h if same else F.conv1d(h, block.shortcut.weight, block.shortcut.bias))
        return h.transpose(1, 2)


def in_one_table(a, b, temperature=1.):
    "The contrast as it is written: a table of similarities (G, 2N, 2N) for each group of N pairs."
    n = a.shape[1]
    z = torch.cat([a, b], 1)
    itself = torch.eye(2*n, dtype=torch.bool, device=z.device)
    similarity = (z @ z.transpose(1, 2)/temperature).masked_fill(itself, float("-inf"))
    partner = torch.arange(2*n, device=z.device).roll(n).repeat(len(a))
    return F.cross_entropy(similarity.flatten(0, 1), partner)


def hierarchy(a, b):
    "The hierarchical loss on that table."
    total, levels = 0.0, 0
    while True:
        total, levels = total + 0.5*in_one_table(a.transpose(0, 1), b.transpose(0, 1)), levels + 1
        if a.shape[1] == 1: return total/levels
        total = total + 0.5*in_one_table(a, b)
        a, b = (F.max_pool1d(z.transpose(1, 2), 2).transpose(1, 2) for z in (a, b))


def each_window(a, b, temperature):
    "Contrast of windows by their directions."
    return in_one_table(*(F.normalize(z, dim=1).unsqueeze(0) for z in (a, b)), temperature)


# --- the loss of each method: of the task, its network in a plain form, windows, and what draws

def ts2vec(task, network, x, generator):
    a1, a2, b1, b2 = random_crops(x.shape[1], generator)
    shown = lambda a, b: draw_mask(task.mask, (len(x), b - a), generator, task.mask_probability)
    first, second = (network(x[:, a:b], shown(a, b)) for a, b in ((a1, b1), (a2, b2)))
    return hierarchy(first[:, a2 - a1:], second[:, :b1 - a2])


def tnc(task, network, x, generator):
    "Each window through the network by itself."
    centre, near, far, series = task.draw(x, generator)
    windows = x.unfold(1, task.bars(x.shape[1]), 1).transpose(2, 3)      # (B, places, W, C)

    def vectors(row, first):
        return network(windows[row.flatten(), first.flatten()])[:, -1].view(*first.shape, -1)
    own = torch.arange(len(x), device=x.device).view(-1, 1)
    here = vectors(own.expand_as(centre), centre).unsqueeze(2)
    there = [vectors(row, first) for row, first in ((own.unsqueeze(2).expand_as(near), near), (series, far))]
    a, b = (task.scores(here.expand_as(other), other, generator).sigmoid() for other in there)
    return (-a.log().mean() - task.w*b.log().mean() - (1 - task.w)*(1 - b).log().mean())/2


def cost(task, network, x, generator):
    "Every expert and the Fourier layer at every bar, a table for each frequency."
    e, slow = task.encoder, PlainNetwork(task.slow_backbone.module)
    first, second = random_view(x, generator), random_view(x, generator)
    bar = int(torch.randint(x.shape[1], (), generator=generator, device=generator.device))

    def trend(experts, h):
        past = h.transpose(1, 2)
        each = [F.conv1d(F.pad(past, (len(w) - 1, 0)), w.flip(0).permute(2, 1, 0)) for w in experts.weights]
        return sum(each)[:, :, bar]/len(each) + experts.bias

    def season(h):
        weight, bias = torch.complex(*e.season.weight), torch.complex(*e.season.bias)
        out = torch.einsum("bfi,fio->bfo", torch.fft.rfft(h.float(), dim=1), weight) + bias
        # both views are written back to bars and brought to length one there, as in the paper's code
        return torch.fft.rfft(F.normalize(torch.fft.irfft(out, n=x.shape[1], dim=1), dim=2), dim=1)
    h, other = network(first), network(second)             # of the backbone
    query = F.normalize(task.head(trend(e.trend, h)), dim=1)
    with torch.no_grad():
        key = F.normalize(task.slow_head(trend(task.slow_trend.module, slow(second))), dim=1)
    scores = torch.cat([(query*key).sum(1, keepdim=True), query @ task.queue.T], 1)/task.temperature
    contrast = F.cross_entropy(scores, torch.zeros(len(x), dtype=torch.long, device=x.device))
    parts = [torch.view_as_real(season(z)) + 1e-6 for z in (h, other)]
    polar = [(part.square().sum(3).sqrt(), torch.atan2(part[..., 1], part[..., 0])) for part in parts]
    tables = [in_one_table(a.transpose(0, 1), b.transpose(0, 1)) for a, b in zip(*polar)]
    return contrast + task.alpha*sum(tables)/2


def mae(task, network, x, generator):
    "All patches through all layers, what is hidden kept from the attention; window by window."
    e, size = task.encoder, task.encoder.length
    x = x[:, -(x.shape[1]//size*size):].unflatten(1, (-1, size)).flatten(0, 1)
    hidden, _ = task.hide(x, generator)
    errors, counted = 0., hidden_bars(e, hidden).sum()*x.shape[2]
    for window, mask in zip(x, hidden):
        target = window.unflatten(0, (e.n_patches, e.patch))
        tokens = e.embed(torch.cat([target, torch.zeros_like(target)], 2).flatten(1)) + e.positions
        kept = torch.cat([mask.new_zeros(1), mask])            # [CLS] is always there
        latent = torch.cat([e.cls.unsqueeze(0), tokens]).unsqueeze(0)
        for block in e.blocks: latent = block(latent, src_key_padding_mask=kept.unsqueeze(0))
        latent = e.norm(latent)[0]
        shown = torch.where(mask.unsqueeze(1), task.mask_token, task.from_patch(e.of_patch(latent[1:])))
        whole = task.from_whole(e.of_whole(latent[:1]))
        written = task.blocks(torch.cat([whole, shown + task.positions]).unsqueeze(0))[0, 1:]
        wrong = task.out(task.norm(written)).view_as(target) - target
        errors = errors + wrong[mask].square().sum()
    return errors/counted


def future(task, network, x, generator):
    "The moments of what follows, a bar at a time."
    bars, first = x.shape[1], x.shape[1]//4
    answers = task.head(network(x)).unflatten(-1, (len(task.horizons), -1))
    parts = []
    for at, h in enumerate(task.horizons):
        if h >= bars - first: continue
        blocks = [x[:, t + 1:t + 1 + h] for t in range(first, bars - h)]
        wanted = [torch.cat([block.mean(1), (block.square().mean(1) + 1e-2).log()], 1) for block in blocks]
        parts.append(F.smooth_l1_loss(answers[:, first:bars - h, at], torch.stack(wanted, 1)))
    return sum(parts)/len(parts)


def patches_ahead(ahead, context, x, generator):
    "Query by query: which of all patches comes next."
    window, bar, fit = ahead.draw(len(x), x.shape[1], generator)
    losses = []
    for h in range(fit):
        begin = bar + 1 + h*ahead.patch
        patches = torch.stack([x[w, b:b + ahead.patch].T.flatten() for w, b in zip(window, begin)])
        there = ~patches.isnan().any(1)
        keys = ahead.embed(patches[there])
        size = context.shape[2]
        turn = ahead.maps.weight[h*size:(h + 1)*size]
        asked = [(context[w, b] @ turn.T) @ keys.T for w, b in zip(window[there], bar[there])]
        scores = torch.stack(asked)
        losses.append(F.cross_entropy(scores, torch.arange(len(keys), device=x.device)))
    return sum(losses)/len(losses)


def cpc(task, network, x, generator): return patches_ahead(task.ahead, network(x), x, generator)


def simclr(task, network, x, generator):
    view = RandomChoice(*[named_view(name) for name in task.views])
    ends = [network(view(x, generator))[:, -1] for _ in range(2)]
    return each_window(*map(task.head, ends), task.temperature)


def tstcc(task, network, x, generator):
    weak, strong = (named_view(name)(x, generator) for name in task.views)
    of_weak, of_strong = network(weak), network(strong)
    across = (patches_ahead(task.ahead, of_strong, weak, generator)
              + patches_ahead(task.ahead, of_weak, strong, generator))
    ends = [task.head(context[:, -1]) for context in (of_strong, of_weak)]
    return across + task.weight*each_window(*ends, task.temperature)


def tfc(task, network, x, generator):
    other = RandomChoice(*VIEWS.values())(x, generator)
    spectra = [task.spectrum(x), task.spectrum(frequency_mask(x, generator))]
    time = [network(view)[:, -1] for view in (x, other)]
    frequency = [PlainNetwork(task.frequencies)(spectrum)[:, -1] for spectrum in spectra]
    alone = each_window(*time, task.temperature) + each_window(*frequency, task.temperature)
    both = zip(task.heads, (time, frequency))
    joint = [[F.normalize(head(z), dim=1) for z in views] for head, views in both]

    def far(a, b):
        scores, own = a @ b.T/task.temperature, torch.arange(len(a), device=a.device)
        return (F.cross_entropy(scores, own, reduction="none")
                + F.cross_entropy(scores.T, own, reduction="none"))/2
    own = far(joint[0][0], joint[1][0])
    pairs = [(0, 1), (1, 0), (1, 1)]
    nearer = sum(F.relu(own - far(joint[0][a], joint[1][b]) + task.margin) for a, b in pairs)
    return (alone + nearer.mean())/2


def simmtm(task, network, x, generator):
    "Each window is the sum of its neighbours, one after the other."
    n, bars = x.shape[:2]
    shown = draw_mask("binomial", (n*task.copies, bars), generator, task.ratio)
    whole = network(x)
    z = torch.cat([whole, *[network(x, mask) for mask in shown.split(n)]])
    series = F.normalize(task.head(z[:, -1]), dim=1)
    near = (series @ series.T/task.temperature).fill_diagonal_(float("-inf")).log_softmax(1)
    written = torch.stack([task.out(sum(near[i, j].exp()*z[j] for j in range(len(z)) if j != i))
                           for i in range(n)])
    same = [near[i, j] for i in range(len(z)) for j in range(len(z)) if i != j and i % n == j % n]
    return F.mse_loss(written, x) - task.weight*torch.stack(same).mean()


def all_alike(scores):
    "Cross-entropy where the n-th table of scores (B, K) has the n-th answer throughout."
    answer = lambda number: torch.full((len(scores[0]),), number, device=scores[0].device)
    return sum(F.cross_entropy(one, answer(number)) for number, one in enumerate(scores))/len(scores)


def order(task, network, x, generator):
    "Order by order."
    pieces = task.cut(x, generator)
    z = [network(pieces[:, which])[:, -1] for which in range(task.pieces)]
    orders = [*permutations(range(task.pieces))]
    scores = [task.head(torch.cat([z[which] for which in one], 1)) for one in orders]
    return all_alike(scores)


def views(task, network, x, generator):
    shown = [x, *[view(x, generator) for view in VIEWS.values()]]
    return all_alike([task.out(network(one)[:, -1]) for one in shown])


def latent(task, network, x, generator):
    shown = draw_mask("continuous", x.shape[:2], generator, task.ratio)
    answers = task.head(network(x, shown))
    with torch.no_grad(): targets = PlainNetwork(task.slow.module)(x)
    mean, variance = targets.mean((0, 1)), targets.var((0, 1), correction=0)
    return F.smooth_l1_loss(answers[~shown], ((targets - mean)/(variance + 1e-5).sqrt())[~shown])


LOSSES = {"ts2vec": ts2vec, "tnc": tnc, "cost": cost, "mae": mae, "future": future, "cpc": cpc,
          "simclr": simclr, "tstcc": tstcc, "tfc": tfc, "simmtm": simmtm, "order": order, "views": views,
          "latent": latent}


def check_loss(key, device="cpu"):
    "A method's loss and all its gradients are those of the plain form, with the same draws."
    # TNC's windows are then as long as its network sees
    crop, crops = (1000, 2) if key == "tnc" else (200, 1)
    task = make_task(key, 8, 16, 32, 4, crop//crops, 0).to(device)
    x = torch.randn(4, crop, 8, generator=torch.Generator().manual_seed(0)).to(device)
    for weight in task.parameters():   # a head of zeros would hide what comes before it
        if not weight.any(): nn.init.trunc_normal_(weight, std=0.1)
    network, found = PlainNetwork(task.encoder), []
    for loss in (task.loss, lambda *given: LOSSES[key](task, network, *given)):
        task.zero_grad()
        if key == "cost": task.queue.copy_(F.normalize(torch.ones_like(task.queue), dim=1))
        value = loss(x, torch.Generator(device).manual_seed(0))
        value.backward()
        found.append([value] + [weight.grad for weight in task.parameters() if weight.grad is not None])
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-5)
