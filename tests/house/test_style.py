"""Form: ruff, strict types, the length of files, words that must not stand here, links that lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("protocol", "codecs", "hsm", "terminals", "routing", "switch", "ext")

LINES_MAX = 400
# A longer file is one thing that would not be clearer in two.
LONGER = {
    "codecs/_iso8583.pyx": "one codec: encode and decode stand side by side",
    "codecs/_message.pyx": "one codec: encode and decode stand side by side",
    "tests/codecs/test_message.py": "one suite over two twins, with its generators",
    "tests/hsm/test_channel.py": "one table of peers that must be refused, with the peers",
    "tests/hsm/test_pki.py": "one authority under test, from its making to its revocations",
}
TEXT = (".py", ".pyi", ".pyx", ".pxd", ".c", ".h", ".md", ".toml", ".sh", ".sql", ".json", ".csv", ".yml", "", ".txt")


def run(*arguments: str, cwd: Path = ROOT) -> None:
    outcome = subprocess.run([sys.executable, "-m", *arguments], cwd=cwd, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_ruff_has_nothing_to_say():
    run("ruff", "check", ".")


def test_ruff_would_format_nothing():
    run("ruff", "format", "--check", ".")


@pytest.mark.slow
def test_types_are_strict():
    link = ROOT / "build/namespace/bench"
    if not link.is_symlink():
        link.symlink_to("../../bench")
    # From build/: at the root ./codecs would stand for the standard library's.
    run(
        "mypy", "--config-file", "../pyproject.toml", *(f"namespace/fengshou/{room}" for room in ROOMS),
        "namespace/bench", cwd=ROOT / "build",
    )  # fmt: skip


def sources(files: list[Path], *suffixes: str) -> list[tuple[str, str]]:
    """Name and text of each file of the project with one of these suffixes."""
    chosen = [path for path in files if path.suffix in suffixes and path.name != Path(__file__).name]
    return [(str(path.relative_to(ROOT)), path.read_text("utf-8")) for path in chosen]


def test_files_stay_readable_in_one_sitting(files):
    longer = {name for name, text in sources(files, ".py", ".pyx", ".pxd", ".c") if len(text.splitlines()) > LINES_MAX}
    assert longer == set(LONGER), "split it, or give its reason in LONGER; drop reasons that are no longer needed"


# Paths of somebody's machine, and options that name where packages come from: the user's own settings say that.
FORBIDDEN = re.compile(
    r"(?<![\w.])/(?:home|root|Users)/\w|--(?:extra-)?index-url|--trusted-host|find-links", re.IGNORECASE
)


def test_the_project_stands_on_no_machine_of_its_own(files):
    found = [f"{name}: {match.group()}" for name, text in sources(files, *TEXT) if (match := FORBIDDEN.search(text))]
    assert not found


def test_no_source_has_trailing_work(files):
    """A finished file names no later one: what is left to do stands in the issues."""
    pattern = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")
    found = [name for name, text in sources(files, ".py", ".pyx", ".pxd", ".c", ".sh") if pattern.search(text)]
    assert not found


_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchor_of(heading: str) -> str:
    """The anchor that Markdown readers give a heading: small letters, no marks, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).lower()).replace(" ", "-")


def test_links_of_the_documents_lead_somewhere(files):
    broken = []
    for path in (path for path in files if path.suffix == ".md"):
        text = _FENCED.sub("", path.read_text("utf-8"))
        for link in (first or second for first, second in _LINK.findall(text)):
            if re.match(r"[a-z]+:", link):
                continue  # another site's; tests do not leave this machine
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            if not target.exists():
                broken.append(f"{path.relative_to(ROOT)}: {link}")
            elif anchor and target.suffix == ".md":
                headings = _HEADING.findall(_FENCED.sub("", target.read_text("utf-8")))
                if anchor not in map(anchor_of, headings):
                    broken.append(f"{path.relative_to(ROOT)}: {link} (no such heading)")
    assert not broken
