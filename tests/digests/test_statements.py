"""The digest of a module follows what its code does, not how it is written about."""

import pytest

from sparcl_lib.digests import statements_digest

PLAIN = """
def scaled(x, by=2.0):
    return f"{x:.3g}" if by else x * by
"""


@pytest.mark.parametrize(
    "same",
    [
        '"""About."""\nimport os' + PLAIN.replace("    return", '    """Scaled."""\n    return'),
        "import os  # for later\n\n\n" + PLAIN.replace("(x, by=2.0)", "(\n    x, by = 2.0,\n)"),
        "import os" + PLAIN.replace("(x, by=2.0)", "(x: float, by: 'float' = 2.0) -> str"),
        "import os" + PLAIN.replace("    return", "    pass\n    return"),
        "import os" + PLAIN.replace("    return", "    y: int\n    return"),
        "import os" + PLAIN.replace('f"{x:.3g}"', 'f"" f"{x:.3g}"'),
    ],
)
def test_digest_does_not_follow_how_code_is_written_about(same):
    assert statements_digest(same) == statements_digest("import os" + PLAIN)


@pytest.mark.parametrize(
    "other",
    [
        PLAIN.replace("2.0", "2.5"),
        PLAIN.replace("2.0", "2"),
        PLAIN.replace("2.0", "True"),
        PLAIN.replace(".3g", ".4g"),
        PLAIN.replace("x * by", "by * x"),
        PLAIN.replace("*", "/"),
        PLAIN.replace("scaled", "grown"),
        PLAIN.replace("by=2.0", "*, by=2.0"),
        "@cache" + PLAIN,
        "async " + PLAIN.lstrip(),
    ],
)
def test_digest_follows_what_code_does(other):
    assert statements_digest(other) != statements_digest(PLAIN)


def test_annotations_of_a_class_count_for_they_make_its_fields():
    def digest(body: str) -> str:
        return statements_digest(f"@dataclass\nclass A:\n    {body}\n")

    assert len({digest(body) for body in ("x: int = 3", "x: float = 3", "x = 3", "x: int")}) == 4
    method = "def f(self, y{}): return y"
    assert digest(method.format(": int")) == digest(method.format(""))


def test_bodies_and_branches_are_not_mixed_up():
    texts = ["if a:\n  b\n  c", "if a:\n  b\nc", "if a:\n  b\nelse:\n  c", "if a: pass\nb\nc"]
    assert len({statements_digest(text) for text in texts}) == 4
