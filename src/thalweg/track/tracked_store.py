"""What a store offers for runs that are tracked from a person's own code; `Store` has it beside what studies need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from thalweg.space import Hyperparameters
from thalweg.track import copying, files, merging, runs, studies, tracked_runs
from thalweg.track.database import Database
from thalweg.track.lineage import read_lineage
from thalweg.track.merging import Merged
from thalweg.track.records import NewRun, RunDetails, RunRow, SavedFile
from thalweg.track.runs import find_run
from thalweg.track.series import Floats, Ints, Points


class TrackedRuns:
    """The part of `Store` that tracked runs need."""

    _database: Database

    # Tracked runs

    def track_run(self, project: str, new: NewRun) -> tuple[str, bool]:
        """Enter a run that a person's own code tracks. Returns its id, and whether it is new.

        A run of the same uid, or with that for its id, is the same run. A fork whose parent is not there yet waits for
        it, and is a root until it comes.

        Raises:
            StoreError: there is no such project.
        """
        with self._database.write() as connection:
            return tracked_runs.track_run(connection, project, new)

    def run_rows(self, study: str) -> list[RunRow]:
        """All runs of a study or project as rows of a list, by order of creation. No curve is read."""
        with self._database.read() as connection:
            return tracked_runs.read_rows(connection, study)

    def run_details(self, run_id: str) -> RunDetails:
        """All about one run, its curves excepted."""
        with self._database.read() as connection:
            key = find_run(connection, run_id).key
            return RunDetails(
                row=tracked_runs.read_row(connection, run_id),
                study=runs.read_study_name(connection, run_id),
                facts=tracked_runs.read_facts(connection, run_id),
                notes=tuple(tracked_runs.read_notes(connection, key)),
                files=tuple(files.read_files(connection, run_id, self.files_folder, inherited=True)),
                lineage=tuple(link.run_id for link in read_lineage(connection, key)),
                children=tuple(tracked_runs.read_children(connection, key)),
            )

    def find_run(self, project: str, name: str) -> str | None:
        """The id of a run of a project by its id or uid; None where there is none."""
        with self._database.read() as connection:
            row = tracked_runs.find_by_uid(connection, studies.find_study(connection, project).key, name)
            return None if row is None else str(row.id)

    def reopen_run(self, run_id: str) -> None:
        """A tracked run that had ended goes on."""
        with self._database.write() as connection:
            tracked_runs.reopen(connection, run_id)

    def add_note(self, run_id: str, text: str, author: str | None = None) -> None:
        """Write something about a run."""
        with self._database.write() as connection:
            tracked_runs.add_note(connection, run_id, text, author)

    def set_tags(self, run_id: str, tags: Sequence[str], *, add: bool = False) -> None:
        """Give a run these tags instead of, or beside, those that it has."""
        with self._database.write() as connection:
            tracked_runs.set_tags(connection, run_id, tags, add=add)

    def rename(self, run_id: str, name: str | None) -> None:
        """Give a run another name, any text; its id stays."""
        with self._database.write() as connection:
            tracked_runs.rename(connection, run_id, name)

    def set_hyperparameters(self, run_id: str, changes: Hyperparameters) -> None:
        """Add to a tracked run's hyperparameters, or change some."""
        with self._database.write() as connection:
            tracked_runs.set_hyperparameters(connection, run_id, changes)

    def changes(self, since: float) -> list[tuple[str, str, float]]:
        """(study, run id, when) of the runs that were written into at or after a time, by rising time."""
        with self._database.read() as connection:
            return tracked_runs.read_changes(connection, since)

    def import_points(self, run_id: str, metric: str, positions: Ints, times_ms: Ints, values: Floats) -> int:
        """Add whole curves at once, from another tracker say.

        Args:
            positions, times_ms, values: one entry per point, in any order; the last one at a position counts.
                `times_ms` are milliseconds since 1970.
        Returns:
            How many points the run did not have already, bit for bit: none when the same come again.
        """
        points = Points(np.asarray(positions, np.int64), np.asarray(times_ms, np.int64), np.asarray(values, np.float64))
        with self._database.write() as connection:
            return copying.import_points(connection, run_id, metric, points)

    def merge_spools(self) -> list[Merged]:
        """Take in what writers, whose processes are gone, had to leave in spools."""
        return merging.merge_spools(self._database)

    # Files

    @property
    def files_folder(self) -> Path:
        """Where the files are that runs saved."""
        return merging.files_folder(self._database)

    def save_file(self, run_id: str, path: Path, *, name: str, position: int, copy: bool = True) -> SavedFile:
        """Keep a file or folder of a run.

        Args:
            copy: copy it beside the store; otherwise only remember where it is.
        Raises:
            ConfigError: there is nothing at `path`.
            OSError: it cannot be copied.
        """
        kept = files.keep(path, self.files_folder, run_id, copy=copy)
        with self._database.write() as connection:
            files.add_file(connection, run_id, name, position, kept)
            return files.read_files(connection, run_id, self.files_folder, inherited=False)[-1]

    def files(self, run_id: str, *, inherited: bool = True) -> list[SavedFile]:
        """What a run saved, after what it inherits: its parent's up to and including the fork."""
        with self._database.read() as connection:
            return files.read_files(connection, run_id, self.files_folder, inherited=inherited)
