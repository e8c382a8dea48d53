"""Chapter 10: the tools that a reader has, or writes, find the faults planted for them."""

import pytest
from chapter_reader import names_of_a_reader

from sparcl_lib import losses
from sparcl_lib.course import planted
from sparcl_lib.course.chapter import NOTEBOOKS, read_chapter

CHAPTER = read_chapter(NOTEBOOKS / "sources" / "10_paper_and_code.py")
# What is wrong with each: the tool that finds it.
FAULTS = {
    "matching": "order of the locations",  # height and width of the labels are exchanged
    "attraction": "one image and two",  # a sum over the images in place of a mean
    "repulsion": "sign of the push",  # the later class of a pair is pushed by nobody
}
PLANTED = {name: getattr(planted, f"planted_{name}") for name in FAULTS}


@pytest.fixture(scope="module")
def reader() -> dict:
    return names_of_a_reader(CHAPTER)


def fired(reader: dict, loss, name: str) -> list[str]:
    """The tools of the chapter, and the one of exercise 10.3, whose two numbers differ."""
    found = reader["disagreements"](loss, reader["BY_HAND"][name])
    own = reader["other_names"](loss)
    return found if reader["agree"](*own) else [*found, "other names"]


@pytest.mark.parametrize("name", FAULTS)
def test_each_planted_fault_is_found_by_one_tool(reader, name):
    assert fired(reader, PLANTED[name], name) == [FAULTS[name]]


@pytest.mark.parametrize("name", ["matching", "attraction", "repulsion"])
def test_the_formulas_pass_all_tools(reader, name):
    assert fired(reader, reader["FORMULAS"][name], name) == []


def test_of_sparsification_the_push_alone_is_no_question(reader):
    found = fired(reader, reader["FORMULAS"]["sparsification"], "sparsification")
    assert found == ["sign of the push"]


@pytest.mark.parametrize(
    "name, expected",
    [
        ("matching", {"value by hand", "order of the locations"}),
        ("attraction", {"order of the locations", "one image and two", "other names"}),
        ("repulsion", {"order of the locations", "one image and two", "finer digits"}),
        ("sparsification", {"what is not labelled", "a silent location"}),
    ],
)
def test_the_released_losses_are_found(reader, name, expected):
    released = getattr(losses, f"released_{name}")

    def loss(f, y, p):
        return released(f, y, p if name in ("matching", "attraction") else len(p))

    assert expected <= set(fired(reader, loss, name))


@pytest.mark.parametrize("name", FAULTS)
def test_on_its_smallest_tensor_a_planted_loss_is_another_one(reader, name):
    """In its value, or, of repulsion, in its gradient alone."""
    features, labels, prototypes = reader["smallest_case"](name)
    found = []
    for loss in (PLANTED[name], reader["FORMULAS"][name]):
        leaf = features.clone().requires_grad_()
        value = loss(leaf, labels, prototypes)
        value.backward()
        found.append((value.item(), leaf.grad))
    (value, gradient), (formula, wanted) = found
    assert (value == pytest.approx(formula)) == (name == "repulsion")
    assert not gradient.allclose(wanted)
    assert features.numel() <= 4


@pytest.mark.parametrize("name", FAULTS)
def test_where_nothing_is_labelled_a_planted_loss_is_zero_and_has_a_gradient(reader, name):
    features, labels, prototypes = reader["scene"]()
    leaf = features.requires_grad_()
    value = PLANTED[name](leaf, labels * 0 + 255, prototypes)
    value.backward()
    assert value == 0 and leaf.grad.count_nonzero() == 0
