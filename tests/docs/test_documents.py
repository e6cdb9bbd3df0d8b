"""Every file, heading, test and command that a document names is there."""

import re
from pathlib import Path

import click
import pytest

from fengshou.switch.cli.main import main

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")],
    key=lambda path: str(path),
)
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
SOURCE = re.compile(r"(tests|protocol|codecs|hsm|terminals|routing|switch|ext|docs|deploy|bench)/[\w./-]+\.\w+")
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def anchors(document: Path) -> set[str]:
    """The fragments of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", document.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", document.read_text("utf-8"))):
        if target.startswith("https://"):
            continue
        name, _, fragment = target.partition("#")
        file = (document.parent / name).resolve() if name else document
        assert file.exists(), target
        assert not fragment or fragment in anchors(file), target


@each_document
def test_tests_and_sources_that_are_named_exist(document: Path) -> None:
    last = ""
    for code in re.findall(r"`([^`\n]+)`", FENCE.sub("", document.read_text("utf-8"))):
        path, _, test = code.partition("::")
        if SOURCE.fullmatch(path):
            assert (ROOT / path).exists(), code
        if test:
            last = path or last
            assert f"def {test}(" in (ROOT / last).read_text("utf-8"), code


@each_document
def test_commands_that_are_named_exist(document: Path) -> None:
    for words in re.findall(r"\bfengshou ([a-z]+(?:-[a-z]+)*)(?: ([a-z]+(?:-[a-z]+)*))?", document.read_text("utf-8")):
        command = main.get_command(click.Context(main), words[0])
        assert command is not None, words
        if isinstance(command, click.Group) and words[1]:
            assert words[1] in command.list_commands(click.Context(command)), words


def test_both_readmes_say_the_same_commands() -> None:
    blocks = [
        re.sub(r"#.*", "", "\n".join(re.findall(r"^```(?:sh|toml)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)))
        for text in ((ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh-CN.md"))
    ]
    assert blocks[0] == blocks[1]
