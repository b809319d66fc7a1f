"""Small pictures, and rows written in the forms that benchmarks come in."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(shade).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()


def base(shade: int) -> str:
    return base64.b64encode(png(shade)).decode()


def write(path: Path, rows: Any) -> Path:
    if path.suffix == ".tsv":
        names = list(dict.fromkeys(name for row in rows for name in row))
        lines = ["\t".join(names)] + ["\t".join(quoted(row.get(name, "")) for name in names) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def quoted(value: Any) -> str:
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if set(text) & set('\t\n"') else text
