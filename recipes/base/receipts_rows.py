"""Real scanned receipts as questions, for an honest test out of domain: total, date and company of each.

python recipes/base/receipts_rows.py SROIE OUT.json

SROIE holds img/NAME.jpg and key/NAME.json with the fields company, date and total (ICDAR 2019). Pictures are named by
their absolute paths and stay where they are. Nothing of it may ever be trained on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

QUESTIONS = {
    "total": "What is the total?",
    "date": "What is the date?",
    "company": "Which shop is this receipt from?",
}


def rows(folder: Path) -> list[dict[str, object]]:
    """A LLaVA row per receipt and field that its key file tells."""
    made: list[dict[str, object]] = []
    for key in sorted((folder / "key").glob("*.json")):
        fields = json.loads(key.read_text(encoding="utf-8"))
        picture = next((folder / "img").glob(f"{key.stem}.*")).resolve()
        for field, question in QUESTIONS.items():
            if fields.get(field):
                turns = [
                    {"from": "human", "value": f"<image>\n{question}"},
                    {"from": "gpt", "value": str(fields[field])},
                ]
                name = f"{key.stem}-{field}"
                made.append({"id": name, "image": picture.as_posix(), "conversations": turns, "tasks": [field]})
    return made


if __name__ == "__main__":
    source, out = map(Path, sys.argv[1:3])
    out.write_text(json.dumps(rows(source), ensure_ascii=False, indent=1), encoding="utf-8")
