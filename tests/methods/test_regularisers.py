"""EWC, PI and RW against slow loops in float64, and how they hold weights over several steps."""

import copy
import io
from typing import get_args, get_type_hints

import pytest
import torch
from torch import nn

from sparcl_lib.methods import RegulariserSettings, WeightPenalty, regularisers
from sparcl_lib.methods.regularisers import (
    DAMPING,
    SCORE_FLOOR,
    importance_from,
    min_max,
    path_importance,
    path_score,
    quadratic_penalty,
    running_fisher,
)

NAMES = get_args(get_type_hints(RegulariserSettings)["name"])
COPIES = {"ewc": 3, "pi": 6, "rw": 9}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.steps = nn.ModuleList([nn.Linear(4, 2)])

    def forward(self, x):
        return torch.cat([step(self.body(x).tanh()) for step in self.steps], dim=1)


@pytest.fixture(autouse=True)
def in_float64():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def train(net, penalty=None, updates=25, lr=0.2, seed=1):
    """Gradients before the penalty and parameters before and after, of every update."""
    g = torch.Generator().manual_seed(seed)
    optimizer, trace = torch.optim.SGD(net.parameters(), lr, momentum=0.9), []
    for _ in range(updates):
        x = torch.randn(8, 3, generator=g)
        loss = (net(x) - x[:, :1]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        gradient = {n: p.grad.clone() for n, p in net.named_parameters()}
        before = {n: p.detach().clone() for n, p in net.named_parameters()}
        if penalty:
            penalty.after_backward()
        optimizer.step()
        if penalty:
            penalty.after_update()
        after = {n: p.detach().clone() for n, p in net.named_parameters()}
        trace.append((gradient, before, after))
    return trace


def grown(net):
    net = copy.deepcopy(net)
    net.steps.append(nn.Linear(4, 1))
    return net


# The formulas, once more and slowly: one parameter entry at a time.
def slow_fisher(trace, name, index, start=0.0, alpha=0.9):
    value = start
    for gradient, _, _ in trace:
        value = alpha * gradient[name][index].item() ** 2 + (1 - alpha) * value
    return value


def slow_path(trace, name, index):
    return sum(
        -g[name][index].item() * (after[name][index] - before[name][index]).item()
        for g, before, after in trace
    )


def slow_pi(trace, name, index, earlier=0.0):
    change = (trace[-1][2][name][index] - trace[0][1][name][index]).item()
    return earlier + max(slow_path(trace, name, index), 0) / (change**2 + DAMPING)


def slow_rw(trace, name, index, start=0.0, earlier=None, interval=10):
    score, fisher = 0.0, start
    for first in range(0, len(trace), interval):
        part = trace[first : first + interval]
        fisher = slow_fisher(part, name, index, fisher)
        change = (part[-1][2][name][index] - part[0][1][name][index]).item()
        score += slow_path(part, name, index) / (fisher * change**2 / 2 + SCORE_FLOOR)
    score = max(score, 0)
    return score if earlier is None else (score + earlier) / 2


def entries(net):
    return [
        (n, i)
        for n, p in net.named_parameters()
        for i in map(tuple, torch.ones_like(p).nonzero().tolist())
    ]


@pytest.mark.parametrize("name", NAMES)
def test_two_steps_equal_the_slow_loop(name):
    first = Net()
    penalty = WeightPenalty(RegulariserSettings(name=name, weight=3), first)
    trace = train(first, penalty)
    state = penalty.state_dict()
    assert set(state) == {"ewc": {"fisher"}, "pi": {"score"}, "rw": {"fisher", "score"}}[name]
    second = grown(first)
    again = WeightPenalty(RegulariserSettings(name=name, weight=3), second, state)
    later = train(second, again, seed=2)
    final = again.state_dict()
    old = dict(entries(first))
    for n, i in entries(second):
        known = n in old
        if "fisher" in state:
            start = slow_fisher(trace, n, i) if known else 0
            assert not known or state["fisher"][n][i].item() == pytest.approx(start)
            expected = slow_fisher(later, n, i, start)
            assert final["fisher"][n][i].item() == pytest.approx(expected)
        if "score" in state:
            slow = slow_pi if name == "pi" else slow_rw
            options = {"start": start} if name == "rw" else {}
            was = slow(trace, n, i) if known else None
            assert not known or state["score"][n][i].item() == pytest.approx(was, rel=1e-6)
            earlier = (was or 0.0) if name == "pi" else was
            expected = slow(later, n, i, earlier=earlier, **options)
            assert final["score"][n][i].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_as_stated(name):
    """Copies of the parameters held in a later step, its state read from a file."""
    net, file = Net(), io.BytesIO()
    first = WeightPenalty(RegulariserSettings(name=name), net)
    train(net, first)
    torch.save(first.state_dict(), file)
    state = torch.load(io.BytesIO(file.getvalue()))
    assert sum(map(len, state.values())) == (2 if name == "rw" else 1) * len(list(net.parameters()))
    later = WeightPenalty(RegulariserSettings(name=name), net, state)
    del state
    train(net, later)
    own = {p.data_ptr() for p in net.parameters()}
    held = {t.data_ptr(): t.numel() for t in tensors(vars(later)) if t.data_ptr() not in own}
    size = sum(p.numel() for p in net.parameters())
    assert sum(held.values()) == COPIES[name] * size
    assert f"{name.upper()} {COPIES[name]}" in regularisers.__doc__


def tensors(content) -> list[torch.Tensor]:
    """Every tensor in nested tuples and dictionaries."""
    if isinstance(content, torch.Tensor):
        return [content]
    parts = content.values() if isinstance(content, dict) else content
    nested = isinstance(content, dict | tuple)
    return [tensor for part in parts for tensor in tensors(part)] if nested else []


@pytest.mark.parametrize("name", NAMES)
def test_penalty_and_its_gradient(name):
    """The value by hand; the gradient added is that of autograd, on old parameters alone."""
    first = Net()
    penalty = WeightPenalty(RegulariserSettings(name=name), first)
    train(first, penalty)
    state, second = penalty.state_dict(), grown(first)
    held = WeightPenalty(RegulariserSettings(name=name, weight=7), second, state)
    assert held.value() == 0 and held.importance.keys() == dict(first.named_parameters()).keys()
    with torch.no_grad():
        for p in second.parameters():
            p += 0.1
    kinds = [min_max(state[kind]["body.weight"]) for kind in sorted(state)]
    torch.testing.assert_close(held.importance["body.weight"], sum(kinds))
    expected = 0.01 * sum(w.sum() for w in importance_from(state).values())
    torch.testing.assert_close(held.value(), expected)
    parameters = dict(second.named_parameters())
    (7 * quadratic_penalty(parameters, held.anchors, held.importance)).backward()
    wanted = {n: p.grad for n, p in parameters.items()}
    for p in parameters.values():
        p.grad = torch.zeros_like(p)
    held.after_backward()
    for n, p in parameters.items():
        known = n in held.importance
        torch.testing.assert_close(p.grad, wanted[n] if known else torch.zeros_like(p))
        assert known == p.grad.any().item()


def test_penalty_constant_and_gradcheck():
    theta, anchor = torch.tensor([1.0, 3.0], requires_grad=True), torch.tensor([0.0, 1.0])
    weights = torch.tensor([2.0, 0.5])
    value = quadratic_penalty({"a": theta, "b": theta}, {"a": anchor}, {"a": weights})
    assert value.item() == 2 * 1 + 0.5 * 4
    assert torch.autograd.gradcheck(
        lambda t: quadratic_penalty({"a": t}, {"a": anchor}, {"a": weights}), (theta,)
    )


def test_pure_parts_by_hand():
    f, g = torch.tensor([1.0, 4.0]), torch.tensor([2.0, 0.0])
    assert running_fisher(f, g, 0.75).tolist() == [3.25, 1]
    assert min_max(torch.tensor([2.0, 3.0, 6.0])).tolist() == [0, 0.25, 1]
    assert min_max(torch.full((3,), 5.0)).tolist() == [0, 0, 0]
    assert min_max(1e-12 * torch.tensor([0.0, 1.0, 2.0])).tolist() == [0, 0.5, 1]
    assert min_max(torch.tensor(3.0)).item() == 0
    path, change = torch.tensor([0.6, -0.6]), torch.tensor([2.0, 2.0])
    assert path_importance(path, change).tolist() == pytest.approx([0.6 / (4 + DAMPING), 0])
    expected = [0.6 / (2 + SCORE_FLOOR), -0.6 / (8 + SCORE_FLOOR)]
    assert path_score(path, f, change).tolist() == pytest.approx(expected)
    assert path_score(path, 0 * f, 0 * change).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_observing_changes_nothing_and_holding_holds(name):
    first, watched = Net(), None
    watched = copy.deepcopy(first)
    penalty = WeightPenalty(RegulariserSettings(name=name), watched)
    train(first)
    train(watched, penalty)
    assert all(map(torch.equal, first.parameters(), watched.parameters()))  # step 0 is free
    moves = []
    for weight in (0.0, 1.0, 10.0):
        net = grown(watched)
        held = WeightPenalty(
            RegulariserSettings(name=name, weight=weight), net, penalty.state_dict()
        )
        train(net, held, lr=0.02, seed=5)
        moves.append(held.value().item())
    assert moves[0] > moves[1] > moves[2] > 0


@pytest.mark.parametrize("name", NAMES)
def test_state_survives_the_disk(name, tmp_path):
    net = Net()
    penalty = WeightPenalty(RegulariserSettings(name=name), net)
    train(net, penalty)
    state = penalty.state_dict()
    torch.save(state, tmp_path / "state.pt")
    again = torch.load(tmp_path / "state.pt", weights_only=True)
    runs = []
    for known in (state, again):
        student = copy.deepcopy(net)
        held = WeightPenalty(RegulariserSettings(name=name), student, known)
        train(student, held, seed=3)
        runs.append((list(student.parameters()), held.state_dict()))
    assert all(map(torch.equal, runs[0][0], runs[1][0]))
    for kind, tensors in runs[0][1].items():
        assert all(
            torch.equal(t, runs[1][1][kind][n]) and not t.requires_grad for n, t in tensors.items()
        )
        assert all((t >= 0).all() for t in tensors.values())


def test_a_parameter_without_gradient_is_left_alone():
    net = Net()
    net.body.weight.requires_grad_(False)
    for name in NAMES:
        penalty = WeightPenalty(RegulariserSettings(name=name), net)
        (net(torch.randn(4, 3))).sum().backward()
        penalty.after_backward()
        penalty.after_update()
        for tensors in penalty.state_dict().values():
            assert not tensors["body.weight"].any() and tensors["body.bias"].isfinite().all()
        net.zero_grad()
