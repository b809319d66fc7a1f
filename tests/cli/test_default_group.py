"""A group whose default command is meant when the first word names none."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from bluelm_cli.default_group import DefaultGroup
from stages.artifacts.errors import UsageError

app = typer.Typer(cls=DefaultGroup, add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})


@app.callback()
def group() -> None:
    """What the group is for."""


@app.command()
def run(
    model: Annotated[str | None, typer.Argument()] = None, chunk: Annotated[list[int] | None, typer.Option()] = None
) -> None:
    """Runs."""
    typer.echo(f"run {model} {chunk or []}")


@app.command()
def table(folder: str) -> None:
    """Tables."""
    typer.echo(f"table {folder}")


def call(*words: str) -> str:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output.strip()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "run None []"),
        (("some/model",), "run some/model []"),
        (("--chunk", "128"), "run None [128]"),
        (("m", "--chunk", "128", "--chunk", "512"), "run m [128, 512]"),
        (("run", "table"), "run table []"),
        (("table", "run"), "table run"),
        (("--", "table"), "run table []"),
        (("./table",), "run ./table []"),
    ],
)
def test_the_first_word_decides(words: tuple[str, ...], said: str) -> None:
    assert call(*words) == said


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_the_groups(flag: str) -> None:
    text = call(flag)
    assert "What the group is for." in text and "table" in text


def test_help_after_a_command_is_the_commands() -> None:
    assert "--chunk" in call("run", "--help")
    assert "--chunk" in call("model", "--help")


def test_a_misspelt_command_is_no_model() -> None:
    with pytest.raises(UsageError) as caught:
        call("tabel", "x")
    assert "'tabel'" in caught.value.what and "'table'" in caught.value.fix


def test_a_folder_that_looks_like_a_misspelt_command_is_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tabel").mkdir()
    assert call("tabel") == "run tabel []"


def test_a_shell_completing_an_empty_line_is_offered_the_commands() -> None:
    command = typer.main.get_command(app)
    assert isinstance(command, DefaultGroup)
    with command.make_context("x", [], resilient_parsing=True) as context:
        assert context.invoked_subcommand is None
        assert command.list_commands(context) == ["run", "table"]
        assert command.with_default([], context) == []
        assert command.with_default(["--chu"], context) == ["run", "--chu"]
