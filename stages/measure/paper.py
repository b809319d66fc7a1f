"""The paper's tables and figures as data: what `recipes/paper/*.yaml` hold, each with the section it stands in."""

from __future__ import annotations

from pydantic import model_validator

from stages.artifacts.errors import RecipeError
from stages.artifacts.recipes import RecipeModel, read_recipe, recipes_folder, validate

FOLDER = "paper"
Cell = str | int | float | None


class PaperTable(RecipeModel):
    """One table.

    Attributes:
        id: how it is asked for.
        section: where it stands.
        title: what it shows.
        settings: under which its values hold.
        columns: name and unit; the first one names the rows.
        rows: a value for each column, None where the paper gives none.
    """

    id: str
    section: str
    title: str
    settings: dict[str, str | int | float | list[int]]
    columns: dict[str, str]
    rows: tuple[dict[str, Cell], ...]

    @model_validator(mode="after")
    def _square(self) -> PaperTable:
        for row in self.rows:
            if set(row) != set(self.columns):
                raise ValueError(f"{self.id}: a row has {', '.join(row)}")
        return self

    def value(self, row: str, column: str) -> float:
        """A number of the table.

        Raises:
            KeyError: there is no such row, or no number in it.
        """
        key = next(iter(self.columns))
        found = next((one[column] for one in self.rows if one[key] == row), None)
        if not isinstance(found, int | float):
            raise KeyError(f"{self.id}: {row}, {column}")
        return found


class _PaperFile(RecipeModel):
    tables: tuple[PaperTable, ...]


def paper_tables() -> dict[str, PaperTable]:
    """All tables by id, in the order of the files.

    Raises:
        RecipeError: this installation lacks them, or one is broken.
    """
    files = sorted((recipes_folder() / FOLDER).glob("*.yaml"))
    if not files:
        raise RecipeError(
            f"{recipes_folder() / FOLDER} holds no tables.", "They come with bluelm.", "Install bluelm again."
        )
    tables = [table for file in files for table in validate(_PaperFile, read_recipe(file), str(file)).tables]
    return {table.id: table for table in tables}
