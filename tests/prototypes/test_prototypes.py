"""Running prototypes are the mean over everything seen, in any order, over any ranks."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch
from conftest import PATIENCE
from torch import distributed, multiprocessing, nn

from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.prototypes.sums import class_means, class_sums, count_classes

CLASSES, DIM = 5, 7


def batch(seed: int, size: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and labels with void, a class (2) that is absent, and one (9) above the bank."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0, 1, 3, 4, 9, 255])[torch.randint(6, (size, 3, 5), generator=g)]
    return torch.randn(size, DIM, 3, 5, generator=g) + 3, labels


def filled(*batches) -> PrototypeBank:
    bank = PrototypeBank(CLASSES, DIM)
    for features, labels in batches:
        bank.update(features, labels)
    return bank


def same(one: PrototypeBank, other: PrototypeBank) -> bool:
    return torch.equal(one.counts, other.counts) and torch.allclose(
        one.sums, other.sums, rtol=1e-12, atol=0
    )


def test_mean_over_all_vectors_at_once():
    batches = [batch(seed) for seed in range(10)]
    bank = filled(*batches)
    rows = torch.cat([f.double().movedim(1, -1).reshape(-1, DIM) for f, _ in batches])
    ids = torch.cat([y.flatten() for _, y in batches])
    for c in range(CLASSES):
        members = rows[ids == c]
        assert bank.counts[c] == len(members)
        expected = members.mean(0) if len(members) else torch.zeros(DIM, dtype=torch.float64)
        torch.testing.assert_close(bank.sums[c] / max(len(members), 1), expected)
        torch.testing.assert_close(bank.prototypes[c], expected.float())


def test_running_formula_of_the_paper():
    bank = filled(batch(0))
    before, seen = bank.prototypes.clone(), bank.counts.clone().unsqueeze(1)
    features, labels = batch(1)
    sums, counts = class_sums(features, labels, CLASSES)
    bank.update(features, labels)
    expected = (sums + seen * before) / (seen + counts.unsqueeze(1)).clamp(min=1)
    torch.testing.assert_close(bank.prototypes, expected)


def test_order_and_split_do_not_matter():
    a, b = batch(0), batch(1)
    expected = filled(a, b)
    assert same(filled(b, a), expected)
    joined = torch.cat([a[0], b[0]]), torch.cat([a[1], b[1]])
    assert same(filled(joined), expected)
    assert same(filled(*[(f[None], y[None]) for f, y in zip(*joined, strict=True)]), expected)


def test_absent_and_void_stay_at_zero():
    bank = filled(batch(0))
    assert bank.counts[2] == 0 and bank.prototypes[2].count_nonzero() == 0
    features, labels = batch(1)
    bank = filled((features, torch.full_like(labels, 255)))
    assert bank.counts.sum() == 0 and bank.prototypes.count_nonzero() == 0


def test_no_gradient_and_reading_changes_nothing():
    features, labels = batch(0)
    bank = filled((features.requires_grad_(), labels))
    before = {name: value.clone() for name, value in bank.state_dict().items()}
    first, second = bank.prototypes, bank.prototypes
    assert not first.requires_grad and not bank.sums.requires_grad
    first.add_(1)
    assert not torch.equal(first, second)
    assert all(torch.equal(before[name], value) for name, value in bank.state_dict().items())
    assert list(bank.parameters()) == []


def test_no_drift_under_autocast_and_in_half_precision():
    features, labels = batch(0)
    with torch.autocast("cpu", torch.bfloat16):
        bank = filled((features, labels))
    assert same(bank, filled((features, labels))) and bank.sums.dtype == torch.float64
    rounded = features.bfloat16()
    assert same(filled((rounded, labels)), filled((rounded.double(), labels)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_network_that_is_cast_leaves_its_bank_exact(dtype):
    """In bfloat16 sums stop growing, counts do not: prototypes fell to an eighth in silence."""
    network = nn.Sequential(nn.Linear(2, 2), filled(batch(0)))
    bank = network.to(dtype)[1]
    assert network[0].weight.dtype == dtype
    assert same(bank, filled(batch(0))) and bank.sums.dtype == torch.float64
    bank.update(*batch(1))
    assert same(bank, filled(batch(0), batch(1)))


def test_a_bank_moves_with_its_network():
    bank = filled(batch(0)).to("meta", torch.bfloat16)
    assert bank.sums.is_meta and bank.counts.is_meta and bank.sums.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_state_that_was_cast_is_loaded_exact(dtype):
    """Assigned as it was, it overflowed, and from then on no class was counted."""
    state = {name: v.to(dtype) for name, v in filled(batch(0)).state_dict().items()}
    bank = PrototypeBank(*state["sums"].shape)
    bank.load_state_dict(state, assign=True)
    assert bank.sums.dtype == torch.float64 and bank.counts.dtype == torch.int64
    assert state["sums"].dtype == dtype  # the caller's stays what it is


def test_a_bank_that_was_made_without_memory_begins_with_nothing():
    with torch.device("meta"):
        bank = PrototypeBank(CLASSES, DIM)
    bank = bank.to_empty(device="cpu")
    bank.sums.fill_(3), bank.counts.fill_(7)
    bank.reset_parameters()
    bank.update(*batch(0))
    assert same(bank, filled(batch(0)))


def test_state_dict_goes_on_where_it_stopped(tmp_path):
    bank = filled(batch(0))
    torch.save(bank.state_dict(), tmp_path / "bank.pt")
    restored = PrototypeBank(CLASSES, DIM)
    restored.load_state_dict(torch.load(tmp_path / "bank.pt", weights_only=True), strict=True)
    for each in (bank, restored):
        each.update(*batch(1))
    assert torch.equal(restored.sums, bank.sums) and torch.equal(restored.counts, bank.counts)
    assert same(restored, filled(batch(0), batch(1)))


def test_grow_keeps_what_is_known():
    bank = filled(batch(0))
    before = bank.sums.clone()
    grown = bank.grow(8)
    assert grown.prototypes.shape == (8, DIM)
    assert torch.equal(grown.prototypes[:CLASSES], bank.prototypes)
    assert grown.counts[CLASSES:].sum() == 0 and grown.sums[CLASSES:].count_nonzero() == 0
    grown.update(*batch(1))
    assert torch.equal(bank.sums, before) and len(bank.counts) == CLASSES
    assert same(bank.grow(CLASSES), bank)


def test_misuse():
    bank = PrototypeBank(CLASSES, DIM)
    with pytest.raises(ValueError, match="bank of 5 classes cannot shrink to 4"):
        bank.grow(4)
    features, labels = batch(0)
    with pytest.raises(ValueError, match="same locations"):
        bank.update(features, labels[:, :2])
    with pytest.raises(ValueError, match=f"of features with {DIM} channels"):
        bank.update(features[:, :2], labels)
    with pytest.raises(ValueError, match=r"of torch\.int64, got Tensor of torch\.uint8"):
        bank.update(features, labels.byte())
    with pytest.raises(ValueError, match=r"expected sums \(5, .* and counts \(5,\)"):
        bank.add(torch.zeros(DIM), torch.zeros(CLASSES))


def test_class_sums_by_hand():
    features = torch.tensor([[1.0, 2.0], [3.0, 5.0], [9.0, 9.0]]).T.reshape(1, 2, 1, 3)
    features.requires_grad_()
    sums, counts = class_sums(features, torch.tensor([[[1, 1, 255]]]), 3)
    assert sums.tolist() == [[0, 0], [4, 7], [0, 0]] and counts.tolist() == [0, 2, 0]
    assert class_means(sums, counts).tolist() == [[0, 0], [2, 3.5], [0, 0]]
    sums.sum().backward()
    assert features.grad[0, 0, 0].tolist() == [1, 1, 0]


def test_class_means_takes_sums_and_counts_alone():
    features, labels = batch(0)
    with pytest.raises(ValueError, match=r"sums \(C, D\) and counts \(C,\), as class_sums"):
        class_means(features, labels)
    sums, counts = class_sums(features, labels, CLASSES)
    with pytest.raises(ValueError, match=rf"got \({CLASSES}, {DIM}\) and \(2,\)"):
        class_means(sums, counts[:2])


@pytest.mark.parametrize("labels, expected", [([0, 3, 255], 4), ([255, 255], 0), ([0], 1)])
def test_count_classes(labels, expected):
    assert count_classes(torch.tensor([[labels]])) == expected


def work(rank: int, folder: str) -> None:
    """One of two processes: it sees every other batch."""
    distributed.init_process_group(
        "gloo", f"file://{folder}/meet", timedelta(seconds=PATIENCE), world_size=2, rank=rank
    )
    torch.set_num_threads(1)
    try:
        bank = filled(batch(rank), batch(rank + 2, size=3))
        features, labels = batch(rank + 4)
        sums, counts = class_sums(features, labels, CLASSES)
        kept = sums.clone()
        bank.add(sums, counts)
        torch.save([bank.state_dict(), torch.equal(kept, sums)], Path(folder) / f"{rank}.pt")
    finally:
        distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    processes = multiprocessing.spawn(work, (str(tmp_path),), nprocs=2, join=False)
    while not processes.join(timeout=PATIENCE):
        pass
    a, b = batch(4), batch(5)
    expected = filled(batch(0), batch(1), batch(2, size=3), batch(3, size=3))
    for features, labels in (a, b):
        expected.add(*class_sums(features, labels, CLASSES))
    for rank in range(2):
        state, untouched = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        bank = PrototypeBank(CLASSES, DIM)
        bank.load_state_dict(state)
        assert same(bank, expected) and untouched
