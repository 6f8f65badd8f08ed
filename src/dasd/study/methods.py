"""Does every arm name a method, with settings that it has? Said before anything runs. Needs torch."""

from __future__ import annotations

from dasd.config import BadInput
from dasd.study.cells import Cell, all_cells
from dasd.study.config import Study
from dasd.study.search import read_choice
from dasd.training.run import method_and_contexts


def check_methods(study: Study) -> None:
    """Raises BadInput with the first cell whose method refuses its settings."""
    for cell in all_cells(study):
        try:
            method_and_contexts(cell.run_config(_settings(cell)))
        except BadInput as error:
            raise BadInput(str(error) if str(error).startswith(cell.name) else f"{cell.name}: {error}") from None


def _settings(cell: Cell) -> dict[str, object]:
    choice = read_choice(cell.study, cell.task, cell.arm)
    return choice["chosen"] if choice else {}
