"""Where data and models come from: files, folders, files of installed packages, hub data sets."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thalweg.errors import ConfigError, nearest

if TYPE_CHECKING:
    import pandas as pd

_ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
_HUB_ID = re.compile(r"(?P<id>[\w.-]+(/[\w.-]+)?)(:(?P<config>[\w.-]+))?(@(?P<split>[\w.\[\]:%-]+))?")


def package_path(field: str, source: str) -> Path:
    """The file or folder that `package:NAME/path` stands for; the package is not imported.

    Raises:
        ConfigError: the package is not installed, or does not ship it.
    """
    name, _, inside = source.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"{field} = {source!r}: no package {name!r} is installed; write package:NAME/path/in/it")
    root = Path(next(iter(spec.submodule_search_locations)))
    path = root / inside
    if not path.exists():
        files = (str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc"))
        raise ConfigError(f"{field} = {source!r}: the package ships no {inside!r}. {nearest(inside, list(files)[:50])}")
    return path


def read_table(field: str, source: str, *, split: str) -> pd.DataFrame:
    """Read the rows of a source.

    Args:
        field: what a message calls it, such as `data.train`.
        source: `package:NAME/path`, a file, a folder (all its data files, by name), or a hub data set as
            `ID[:CONFIG][@SPLIT]`.
        split: the split of a hub data set where the source names none.
    Raises:
        ConfigError: it is missing, unreadable, or of a kind that is not known.
    """
    path = package_path(field, source) if source.startswith("package:") else Path(source).expanduser()
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in _ENDINGS)
        if not files:
            raise ConfigError(f"{field} = {source!r}: the folder holds no data file; known endings: {_known_endings()}")
    elif path.is_file():
        files = [path]
    elif path.suffix not in _ENDINGS and (match := _HUB_ID.fullmatch(source)):
        return _read_hub(field, source, match["id"], match["config"], match["split"] or split)
    else:
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        known = nearest(path.name, [name for name in beside if Path(name).suffix in _ENDINGS][:50])
        raise ConfigError(f"{field} = {source!r}: there is no such file. {known}")

    import pandas as pd

    return pd.concat([_read_file(field, file) for file in files], ignore_index=True)


def _known_endings() -> str:
    return ", ".join(_ENDINGS)


def _read_file(field: str, path: Path) -> pd.DataFrame:
    import pandas as pd

    # Only an empty field is a missing one: "None" and "NA" are words that a text may consist of.
    text_options: dict[str, Any] = {"keep_default_na": False, "na_values": [""]}
    try:
        match path.suffix:
            case ".csv":
                return pd.read_csv(path, **text_options)
            case ".tsv":
                return pd.read_csv(path, sep="\t", **text_options)
            # Not pandas' own reader, which guesses at dates and numbers in what is text.
            case ".json":
                return pd.DataFrame(json.loads(path.read_text(encoding="utf-8")))
            case ".jsonl":
                lines = path.read_text(encoding="utf-8").split("\n")
                return pd.DataFrame([json.loads(line) for line in lines if line.strip()])
            case ".parquet":
                return pd.read_parquet(path)
    except (ValueError, OSError) as error:  # pandas' and pyarrow's parsing errors are ValueErrors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{field} = '{path}': cannot be read as {path.suffix}: {reason}") from error
    raise ConfigError(f"{field} = '{path}': unknown ending {path.suffix!r}; known: {_known_endings()}")


def _read_hub(field: str, source: str, name: str, config: str | None, split: str) -> pd.DataFrame:
    import datasets

    try:
        rows = datasets.load_dataset(name, config, split=split).to_pandas()
    except Exception as error:  # the hub's client raises a great many types, its own and its HTTP library's
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"{field} = {source!r}: neither a file or folder here nor a hub data set that could be loaded"
            f" (ID[:CONFIG][@SPLIT]): {reason}"
        ) from error
    return rows
