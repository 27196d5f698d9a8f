"""What the documentation says, asked of the program."""

import os
import pathlib
import re
import subprocess

from gateway import BINARY

ROOT = pathlib.Path(__file__).parents[2]


def check(path):
    """Runs `forebay check` with every secret that the file refers to in the environment."""
    secrets = {name: "x" for name in re.findall(r"env:(\w+)", path.read_text())}
    run = subprocess.run(
        [BINARY, "check", str(path)], capture_output=True, text=True, env={**os.environ, **secrets}
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_example_configuration_is_valid():
    check(ROOT / "deploy" / "forebay.toml")


def test_the_configuration_of_the_readme_is_valid_and_short(tmp_path):
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1 and len(blocks[0].splitlines()) <= 10
    path = tmp_path / "forebay.toml"
    path.write_text(blocks[0])
    check(path)


def test_every_metric_of_the_runbook_is_there():
    """A family without a sample is not shown, so the program's source is asked."""
    text = (ROOT / "docs" / "runbook.md").read_text()
    def family(name):
        return re.sub(r"(_seconds)?(_total|_bucket)?$", "", name)

    named = {family(name) for name in re.findall(r"\bforebay_[a-z0-9_]+", text)}
    sources = (ROOT / "crates" / "forebay" / "src" / "metrics").rglob("*.rs")
    source = "".join(path.read_text() for path in sources)
    known = {family(name) for name in re.findall(r'"(forebay_[a-z0-9_]+)"', source)}
    assert len(known) > 20 and named - known == set()


def test_every_reason_for_a_problem_is_explained():
    source = (ROOT / "crates" / "forebay-http" / "src" / "problem.rs").read_text()
    reasons = set(re.findall(r'^    \w+ = "([a-z-]+)", [A-Z_]+, ', source, re.MULTILINE))
    explained = (ROOT / "docs" / "errors.md").read_text()
    assert len(reasons) > 10
    assert {reason for reason in reasons if f"| {reason} |" not in explained} == set()


def test_links_between_pages_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"
