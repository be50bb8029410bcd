"""What the documents promise is held against the program."""

from __future__ import annotations

import argparse
import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from overair.server.config import Settings

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
MARKDOWN = sorted([*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md"), *(REPOSITORY / "bench").glob("*.md")])


def test_every_setting_is_documented_with_its_flag_its_variable_and_its_default() -> None:
    text = (DOCS / "settings.md").read_text()
    rows = {row[0].strip("` "): row for row in _rows(text) if row[0].startswith("`")}
    assert set(rows) == set(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in rows[name][1]
        assert f"OVERAIR_{name.upper()}" in rows[name][2]
        assert field.description is not None
        assert field.description.split(";")[0].split(".")[0] in rows[name][4]


def test_every_command_is_documented() -> None:
    import typer.main

    from overair.cli.main import app

    group = typer.main.get_command(app)
    text = (DOCS / "commands.md").read_text()

    def walk(command: object, path: str) -> None:
        children = getattr(command, "commands", None)
        if children is not None:
            for name, child in children.items():
                walk(child, f"{path} {name}")
            return
        assert f"`{path}" in text, f"{path} is missing in docs/commands.md"
        assert any("--json" in parameter.opts for parameter in command.params), f"{path} has no --json"  # type: ignore[attr-defined]
        for parameter in command.params:  # type: ignore[attr-defined]
            for option in parameter.opts:
                if option.startswith("--") and option != "--help":
                    assert option in text, f"{path} {option} is missing in docs/commands.md"

    walk(group, "overair")


def test_every_command_of_the_device_is_documented_and_speaks_json() -> None:
    from overair.cli.device_main import _parser

    text = (DOCS / "commands.md").read_text()
    found = dict(_commands_of(_parser(), ()))
    commands = {"boot", "flash", "status", "decryption", "provision", "uptane", "tuf", "fleet", "run"}
    assert {path[0] for path in found} == commands
    for path, parsers in found.items():
        name = " ".join(path)
        assert f"`overair-device {name}" in text, f"overair-device {name} is missing in docs/commands.md"
        options = {
            option
            for parser in parsers
            for action in parser._actions
            for option in action.option_strings
            if option.startswith("--")
        }
        assert "--json" in options, f"overair-device {name} has no --json"
        for option in options - {"--help"}:
            assert option in text, f"overair-device {name} {option} is missing in docs/commands.md"


def _commands_of(
    parser: argparse.ArgumentParser, path: tuple[str, ...], above: tuple[argparse.ArgumentParser, ...] = ()
) -> Iterator[tuple[tuple[str, ...], tuple[argparse.ArgumentParser, ...]]]:
    """Each command with its parser and those above it, whose options it has too."""
    below = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield path, (*above, parser)
    for choices in below:
        for name, child in choices.items():
            yield from _commands_of(child, (*path, name), (*above, parser))


@pytest.mark.parametrize("document", MARKDOWN, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_each_test_that_a_document_names_exists() -> None:
    for document in MARKDOWN:
        for path, name in re.findall(r"`(tests/[\w/.]+\.py)(?:::(\w+))?`", document.read_text()):
            file = REPOSITORY / path
            assert file.exists(), f"{document.name} names {path}"
            if name:
                assert name in _tests_in(file), f"{document.name} names {path}::{name}"


def test_each_file_that_the_architecture_names_exists() -> None:
    for path in re.findall(r"`((?:src|tests|docs|bench|server|wire|agent|basics|cli)/[\w/.-]+\.\w+)`", _architecture()):
        root = REPOSITORY if path.startswith(("src", "tests", "docs", "bench")) else REPOSITORY / "src" / "overair"
        assert (root / path).exists(), f"ARCHITECTURE.md names {path}"


def test_decision_records_are_numbered_without_gaps_and_tell_what_they_cost() -> None:
    records = sorted((DOCS / "adr").glob("*.md"))
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        text = record.read_text()
        assert "**Decided.**" in text or "**Decided**" in text, record.name
        assert "What it costs" in text, record.name


def test_the_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`?make ([a-z-]+)`?", (REPOSITORY / "README.md").read_text()))
    assert named
    assert named <= targets


def _architecture() -> str:
    return (REPOSITORY / "ARCHITECTURE.md").read_text()


def _rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


@functools.cache
def _tests_in(file: Path) -> set[str]:
    nodes = ast.walk(ast.parse(file.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
