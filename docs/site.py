"""Hooks of mkdocs.yml: pages made of files outside docs/, links to such files, and formulas as MathML.

Browsers render MathML by themselves, so that the site needs neither JavaScript nor a network for its formulas.
"""

import html
import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
"""Pages of the site, and the files of the project that they are"""
_INTO_DOCS = re.compile(r'(\]\(|src(?:set)?=")docs/')
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_ROLE = re.compile(r":(?:func|class|mod|meth|attr|data|exc):(?=<code>)")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README.md and its like as pages."""
    for name, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=_INTO_DOCS.sub(r"\1", text)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Keep links between pages; of a link to another file of the project, keep the text."""
    folder = posixpath.dirname(page.file.src_uri)

    def keep(link: re.Match[str]) -> str:
        text, target = link[1], link[2]
        known = "://" in target or files.get_file_from_path(posixpath.normpath(posixpath.join(folder, target)))
        return link[0] if known else text

    return _LINK.sub(keep, markdown)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write formulas as MathML, and names in docstrings without their roles (:func: and its like)."""

    def render(formula: re.Match[str]) -> str:
        display = "block" if formula[1] == "div" else "inline"
        return str(convert(html.unescape(formula[2]), display=display))

    return _FORMULA.sub(render, _ROLE.sub("", content))
