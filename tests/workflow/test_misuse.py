"""Options that Snakemake answers with a traceback are one line."""

from __future__ import annotations

import shlex

import pytest
from snakemake.cli import parse_config

from nfpi.workflow.misuse import describe_misuse

from .conftest import Project

INVALID = (
    "Traceback (most recent call last):\n\n"
    "ValueError: Invalid config definition: Config entry must start with a valid identifier.\n"
)


@pytest.mark.parametrize("form", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--configfile", "nothing.yaml"], "config: --configfile nothing.yaml: No such file or directory"),
        (
            ["--config", "training.epochs=3"],
            "config: --config: expected a name without dots, received training.epochs=3: write 'training={epochs: 3}'",
        ),
    ],
)
def test_a_call_with_a_wrong_option_ends_with_one_line(fresh_project: Project, arguments, line, form) -> None:
    process = fresh_project.run_snakemake("table2", *form, *arguments, check=False)
    assert process.returncode != 0
    lines = [text for text in process.stdout.splitlines() if text.strip()]
    assert lines[1:] == [line]  # below the profile that was read


@pytest.mark.parametrize(
    ("entry", "written"),
    [
        ("training.epochs=3", "'training={epochs: 3}'"),
        ("flows.mef.num_flows=[1, 2]", "'flows={mef: {num_flows: [1, 2]}}'"),
        ("figures.samples=", "'figures={samples: null}'"),
        ("figures.samples.title=λ, K", """'figures={samples: {title: "λ, K"}}'"""),
        ("figures.samples=title: λ", """'figures={samples: {"title": "λ"}}'"""),
        ("figures.samples=[1, 2", """'figures={samples: "[1, 2"}'"""),
    ],
)
def test_the_proposed_form_of_a_dotted_key_is_nested(entry, written) -> None:
    assert str(describe_misuse(INVALID, ["table2", "--config", "seeds=[1]", entry])).endswith(f": write {written}")


@pytest.mark.parametrize(
    "entry", ["title=λ, K", "title=title: λ", "title=it's", "title='λ, K'", "title=[1, {a: b}]", "title=*"]
)
def test_snakemake_reads_the_proposed_form_as_the_value_that_was_given(entry) -> None:
    _, written = str(describe_misuse(INVALID, ["table2", "--config", f"figures.{entry}"])).split(": write ")
    assert parse_config(shlex.split(written)) == {"figures": parse_config([entry])}


@pytest.mark.parametrize("entry", ["training.=3", "training..epochs=3"])
def test_no_form_is_proposed_for_a_name_with_an_empty_part(entry) -> None:
    line = f"config: --config: expected a name without dots, received {entry}"
    assert describe_misuse(INVALID, ["table2", "--config", entry]) == line


def test_without_a_dotted_name_snakemakes_reason_stays() -> None:
    line = "config: --config: Config entry must start with a valid identifier."
    assert describe_misuse(INVALID, ["table2", "--config", "3x=4"]) == line


@pytest.mark.parametrize(
    "text",
    [
        "WorkflowError: something",
        "Traceback (most recent call last):\n\nFileNotFoundError: [Errno 2] No such file or directory: 'a.csv'\n",
        "",
    ],
)
def test_other_errors_stay_as_they_are(text) -> None:
    assert describe_misuse(text, ["table2"]) is None


def test_a_profile_without_its_plugin_is_refused_by_snakemake(fresh_project: Project) -> None:
    hidden = """
import pkgutil

find = pkgutil.iter_modules
pkgutil.iter_modules = lambda *args: (m for m in find(*args) if not m.name.startswith("snakemake_executor_plugin_"))
"""
    fresh_project.write("hidden/sitecustomize.py", hidden)
    process = fresh_project.run_snakemake(
        "--profile", "slurm", "table2", check=False, PYTHONPATH=str(fresh_project.folder / "hidden")
    )
    assert process.returncode != 0
    assert "argument --executor/-e: invalid choice: 'slurm'" in process.stdout.splitlines()[-1]
