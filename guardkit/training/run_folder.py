"""The folder that a training works in, ``OUT.partial``, and whether a run can go on from it.

A run is worth going on with once the family has saved a checkpoint. Before that, a folder that a
failed or killed run left behind is nobody's, and the next run takes it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from guardkit.errors import ArtefactError, TrainingInterrupted
from guardkit.files import locked
from guardkit.model import artefact
from guardkit.types import ClassifierFamily

_RECORD = "run.json"
_LOCK = "lock"
#: Files of a run, which may lie beside those of its model.
RUN_FILES = (_RECORD, _LOCK)


class RunFolder:
    """Where the model ``out`` of ``family`` is made. Of several processes that train together only
    the one that ``leads`` has the folder in its care."""

    def __init__(self, out: Path, family: ClassifierFamily, *, leads: bool = True) -> None:
        self.out, self._leads = out, leads
        self.path = out.with_name(out.name + ".partial")
        #: The name of a checkpoint; of a family that gives none, any file may be one.
        self._checkpoint: str = getattr(family, "checkpoint", "*")

    @contextmanager
    def begun(self, record: Mapping[str, Any], *, resume: bool) -> Iterator[bool]:
        """Hold the folder for a run, ``record`` being what its result follows from; yield whether
        there is something to go on from.

        Raises ArtefactError where the model is there already, or where this run would lose or mix
        with another.
        """
        if not self._leads:
            yield resume
            return
        artefact.refuse_to_replace(self.out)
        if resume and not self.path.exists():
            raise ArtefactError(f"{self.path}: no run to resume; leave out --resume")
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path / _LOCK) as alone:
            if not alone:
                raise ArtefactError(
                    f"{self.path}: another run is writing {self.out.name}; let it end, or choose "
                    "another --out"
                )
            goes_on = self._has_checkpoint()
            if goes_on:
                self._check(record, resume)
            else:
                self._empty()
                artefact.write_json(self.path / _RECORD, record)
            yield goes_on

    @contextmanager
    def removed_if_nothing_is_saved(self) -> Iterator[None]:
        """Remove what a training leaves that fails before its first checkpoint."""
        try:
            yield
        except TrainingInterrupted:
            raise
        except Exception:
            if self._leads and not self._has_checkpoint():
                self.remove()
            raise

    def remove(self) -> None:
        """Remove the folder, if the model has not taken it with it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _has_checkpoint(self) -> bool:
        found = (path for path in self.path.rglob(self._checkpoint) if path.is_file())
        return any(path.name not in (_RECORD, _LOCK) for path in found)

    def _check(self, record: Mapping[str, Any], resume: bool) -> None:
        """Refuse to begin anew over work that is saved, or to go on with another run's."""
        if not resume:
            raise ArtefactError(
                f"{self.path}: holds a run that was interrupted or failed; --resume goes on from "
                "its checkpoint, removing it starts anew"
            )
        path = self.path / _RECORD
        before = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        if different := [key for key in record if record[key] != before.get(key)]:
            raise ArtefactError(
                f"{self.path}: was started with other {', '.join(different)}; resume with the "
                "same, or remove that folder to start anew"
            )

    def _empty(self) -> None:
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != _LOCK:
                path.unlink()


def remove_run_files(folder: Path) -> None:
    """Remove what is a run's and not its model's, where the family made the model in the very
    folder that the run works in."""
    for name in RUN_FILES:
        (folder / name).unlink(missing_ok=True)
