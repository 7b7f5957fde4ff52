"""Spools that were left behind, into the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from thalweg.errors import StoreError
from thalweg.track import compaction, studies, tracked_runs
from thalweg.track.batches import open_writer, write_batches
from thalweg.track.database import Database
from thalweg.track.liveness import Process
from thalweg.track.records import NewRun
from thalweg.track.runs import find_run
from thalweg.track.schema import writer
from thalweg.track.spool import LeftSpool, left_spools


@dataclass(frozen=True)
class Merged:
    """What became of a spool."""

    path: Path
    run: str | None
    """The run's id; None where it could not be merged."""
    num_calls: int
    problem: str | None = None
    """What is wrong; the file is still there then."""


def files_folder(database: Database) -> Path:
    """Where the files of a store's runs are: beside its file, or in the working directory where it is a server."""
    if database.is_sqlite:
        return Path(database.place).parent / "files"
    return Path(".thalweg").absolute() / "files"


def merge_spools(database: Database) -> list[Merged]:
    """Take in the spools of writers whose processes are gone. One that cannot be taken in stays, and is said."""
    merged = []
    for found in left_spools(database.place):
        try:
            merged.append(_merge(database, found))
        except StoreError as error:
            merged.append(Merged(found.path, found.header.get("run"), 0, str(error)))
    return merged


def _merge(database: Database, found: LeftSpool) -> Merged:
    uid = found.header["writer"]
    with database.write() as connection:
        run_id = found.header.get("run")
        if run_id is None:
            described = found.header["create"]
            project = described["project"]
            known = studies.get_or_create_project(connection, project["name"], project["unit"], project["decimals"])
            if known.decimals != project["decimals"]:
                raise StoreError(
                    f"it was written with {project['decimals']} decimals, as the store could not be asked, but project"
                    f" {known.name!r} keeps {known.decimals}: give decimals={known.decimals} to thalweg.init"
                )
            run_id, _ = tracked_runs.track_run(connection, project["name"], NewRun(**described["run"]))
        row = find_run(connection, run_id, lock=True)
        if connection.execute(writer.select().where(writer.c.uid == uid)).first() is None:
            owner = Process(found.header["host"], found.header["pid"], found.header["pid_started"])
            open_writer(connection, row.key, uid, owner)
        write_batches(connection, row, uid, found.batches, tracked=True)
        compaction.compact(connection, row.key)
    # Only now: where the machine dies in between, the numbers of the batches tell that they are in.
    if found.whole:
        found.path.unlink(missing_ok=True)
        return Merged(found.path, run_id, sum(batch.num_calls for batch in found.batches))
    damaged = found.path.with_suffix(".damaged")
    found.path.rename(damaged)
    return Merged(
        damaged,
        run_id,
        sum(batch.num_calls for batch in found.batches),
        "its end was cut off; the rest is in the store",
    )
