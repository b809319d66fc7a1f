"""The pictures of a corpus that need more than one tile, made small enough for one: what tiling is compared with.

python recipes/base/shrunk.py CORPUS OUT SIDE

Writes OUT/whole.json (the questions about pictures larger than SIDE, as they are) and OUT/shrunk.json (the same
questions, the same names, about pictures whose longer side is SIDE pixels). A model that reads the first and not the
second reads because of its tiles.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image


def shrink(corpus: Path, out: Path, side: int) -> int:
    """Returns how many questions there are."""
    rows = json.loads((corpus / "heldout.json").read_text(encoding="utf-8"))
    folder = out / "images"
    folder.mkdir(parents=True, exist_ok=True)
    whole, shrunk = [], []
    for row in rows:
        source = (corpus / row["image"]).resolve()
        with Image.open(source) as picture:
            if max(picture.size) <= side:
                continue
            small = picture.convert("RGB")
        small.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=None)
        small.save(folder / f"{source.stem}.png")
        whole.append({**row, "image": source.as_posix()})
        shrunk.append({**row, "image": (folder / f"{source.stem}.png").resolve().as_posix()})
    for name, kept in (("whole", whole), ("shrunk", shrunk)):
        (out / f"{name}.json").write_text(json.dumps(kept, ensure_ascii=False, indent=1), encoding="utf-8")
    return len(whole)


if __name__ == "__main__":
    shrink(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
