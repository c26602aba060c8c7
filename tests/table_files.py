"""Tables written as the files that users have."""

from pathlib import Path

import pandas as pd


def write_table(path: Path, data: pd.DataFrame | str | bytes) -> Path:
    """Write a table, or content as it is, in the format that the name of the file asks for."""
    if isinstance(data, str):
        path.write_text(data, encoding="utf-8")
    elif isinstance(data, bytes):
        path.write_bytes(data)
    elif path.suffix == ".parquet":
        data.to_parquet(path)
    elif path.suffix == ".jsonl":
        data.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        data.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path
