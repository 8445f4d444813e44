"""Every block of code in README.md and docs/ is run, or says before it why it is not: `<!-- not run: why -->`.

Commands of the workflow are planned (`-n`) in a clone; those of `nfpi` run for real, and so does Python. What `pip` and
`pytest` are given must be there.
"""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits
from stages.conftest import SmallRun
from workflow.conftest import Project, clone_project

from nfpi.cli import main
from nfpi.config.resolution import resolve
from nfpi.results.recorded.calls import StoredSettings, write_planned, write_settings

ROOT = Path(__file__).parents[2]
FILES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
FILES += [path for path in sorted((ROOT / "docs").rglob("*.md")) if "evidence" not in path.parts]
NAMES = [str(file.relative_to(ROOT)) for file in FILES]
EPOCHS = re.compile(r"(?<=--training\.epochs )\d+|(?<=\bepochs=)\d+")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
PYTHON_MODEL = "results/demo/digits/mef/fpi/lambda=10000/seed=0/model"


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        file: in which it stands.
        line: at which it begins.
        language: bash, python, yaml, or text, which is no code.
        text: its content.
        reason: why it is not run.
    """

    file: Path
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def name(self) -> str:
        """Of its test."""
        return f"{self.file.name}:{self.line}"


def blocks_of(file: Path) -> list[Block]:
    """The blocks of a Markdown file."""
    lines, found, begin = file.read_text(encoding="utf-8").splitlines(), [], None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if begin is None:
            begin = number
            continue
        before = next((text for text in reversed(lines[:begin]) if text), "")
        reason = re.fullmatch(r"<!-- not run: (.+) -->", before)
        text = "\n".join(lines[begin + 1 : number]) + "\n"
        found.append(Block(file, begin + 1, lines[begin][3:].strip(), text, reason[1] if reason else None))
        begin = None
    return found


BLOCKS = [block for file in FILES for block in blocks_of(file)]
RUN = [block for block in BLOCKS if block.reason is None]


def of(language: str) -> pytest.MarkDecorator:
    """All blocks in a language that are run."""
    chosen = [block for block in RUN if block.language == language]
    return pytest.mark.parametrize("block", chosen, ids=[block.name for block in chosen])


def commands_of(block: Block) -> list[list[str]]:
    """The commands of a block, as words."""
    text = block.text.replace("\\\n", " ")
    parts = [part for line in text.splitlines() for part in re.split(r" && ", line)]
    return [words for part in parts if (words := shlex.split(part, comments=True))]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone, with the presets that the documents show."""
    return clone_project(tmp_path_factory.mktemp("docs") / "clone")


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """A trained flow that has been evaluated."""
    run = SmallRun(tmp_path_factory.mktemp("small") / "results/demo", weight=1e4, seed=0)
    run.begin()
    run.train()
    write_planned(run.root, [run.identity])
    config = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": "demo"}).config
    write_settings(run.root, StoredSettings.of("demo", config))
    return run


@pytest.fixture
def place(small_run: SmallRun, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which commands run: with results, with images, and with models of digits; kept for later blocks."""
    tmp_path = tmp_path_factory.mktemp("place")
    for folder in (tmp_path, tmp_path / "other"):
        shutil.copytree(small_run.root, folder / "results/demo")
    write_images(tmp_path / "my-images")
    for name in ("digits-model", "my-model"):
        shutil.copytree(small_run.model, tmp_path / name)
    for name in ("digits/validation", "digits/test", "more-photos"):
        write_digits(tmp_path / name)
    Image.new("RGB", (40, 30)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_images(folder: Path) -> None:
    """Forty images of each of two classes."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(40):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / name / f"{number}.png")


def write_digits(folder: Path) -> None:
    """Two digits of each class."""
    digits = load_digits()
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
        for number, image in enumerate(digits.images[digits.target == label][:2]):
            Image.fromarray((image * 255 / 16).astype(np.uint8)).save(folder / f"{label}/{number}.png")


def extension_name(block: Block) -> str | None:
    """The file that a block of Python is, by its first line: `# mine.py`."""
    name = re.match(r"# (\w+\.py)\n", block.text) if block.language == "python" else None
    return name[1] if name else None


def write_extensions(folder: Path, document: Path) -> None:
    """Write the extensions that the presets of a document name."""
    shutil.copy(ROOT / "examples/simplex_prior.py", folder / "my_prior.py")
    for block in blocks_of(document):
        if name := extension_name(block):
            (folder / name).write_text(block.text, encoding="utf-8")


def prepare(project: Project, block: Block) -> None:
    """Write the presets of the document into the clone, and what they name beside it."""
    write_extensions(project.folder, block.file)
    for name in ("my-images", "cifar10-jpeg"):
        if not (project.folder / name).exists():
            write_images(project.folder / name)
    for other in blocks_of(block.file):
        if other.language == "yaml" and other.text.lstrip("# ").startswith(("extends:", "mine.yaml", "my-images.yaml")):
            name = "my-images.yaml" if "my-images" in other.text else "mine.yaml"
            project.write(name, other.text)


@of("bash")
def test_commands(block: Block, project: Project, place: Path) -> None:
    """They are understood, and end well."""
    prepare(project, block)
    for program, *arguments in commands_of(block):
        if [program, *arguments[:1]] == ["nfpi", "run"]:
            program, arguments = "snakemake", arguments[1:]
        if program == "snakemake":
            environment = {name: str(place / name) for name in ("SCRATCH", "WORK", "DSDIR")} | {"IDRPROJ": "abc"}
            process = project.run_snakemake(*arguments, "-n", **environment)
            assert re.search(r"^\d+ jobs? to be run", process.stdout, re.MULTILINE), process.stdout
        elif program == "nfpi":
            short = EPOCHS.sub("2", shlex.join(arguments))
            assert main(shlex.split(short)) == 0, short
            if arguments[0] == "new":  # a preset for the commands that follow, in the clone
                shutil.copy(arguments[-1], project.folder)
        elif program == "pip":
            extras = re.fullmatch(r"install -e \.(?:\[(.+)\])?", " ".join(arguments))
            assert set((extras[1] or "test").split(",")) <= set(EXTRAS)
        elif program in ("git", "cd"):  # git clone ADDRESS nfpi && cd nfpi
            assert arguments[-1] == "nfpi"
        elif program == "pytest":
            assert [name for name in arguments if not (ROOT / name).exists()] == []
        else:
            assert [program, *arguments] == ["mkdocs", "serve"]


@of("yaml")
def test_settings(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are valid."""
    for name in ("SCRATCH", "WORK", "DSDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    preset = tmp_path / "mine.yaml"
    write_extensions(tmp_path, block.file)
    write_images(tmp_path / "my-images")
    text = block.text if "extends:" in block.text else f"extends: demo\n{block.text}"
    preset.write_text(text, encoding="utf-8")
    config = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": str(preset)})
    assert set(yaml.safe_load(text).get("tables", {})) - {"*"} <= set(config.config.tables)


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_python(file: Path, place: Path) -> None:
    """All blocks of a document, one after the other."""
    assert (place / PYTHON_MODEL).is_dir()
    names: dict[str, object] = {}
    for block in blocks_of(file):
        if block.language == "python" and block.reason is None and extension_name(block) is None:
            text = EPOCHS.sub("2", block.text)
            exec(compile("\n" * block.line + text, str(file), "exec"), names)


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_an_extension_is_named_by_a_preset(file: Path) -> None:
    """So it is loaded with the preset."""
    named: set[str] = set()
    for block in blocks_of(file):
        if block.language == "yaml" and block.reason is None:
            named |= set(yaml.safe_load(block.text).get("extensions", []))
    written = {name for block in blocks_of(file) if block.reason is None and (name := extension_name(block))}
    assert written <= named


def test_every_block_names_its_language() -> None:
    """One that no test knows would not be run."""
    assert [block.name for block in BLOCKS if block.language not in ("bash", "python", "yaml", "text")] == []


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_no_code_stands_outside_blocks(file: Path) -> None:
    """Such as indented lines, or fences of another kind."""
    text = re.sub(r"^```.*?^```$", "", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"(?:^|\n)\n(?: {4,}|\t)(?![-*] |\d+\. )\S.*|^ *(?:~~~|```).*", text, re.MULTILINE) == []
