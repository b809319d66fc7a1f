"""`bluelm data render`: what it writes, what it promises before, what it refuses."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages import data_render
from stages.artifacts.events import Progress, result_of
from stages.artifacts.folder import open_artifact
from stages.artifacts.recipes import load_config, recipe_path
from stages.evaluate.baseline import QuestionOnly
from stages.evaluate.questions import read_questions
from stages.workshop.corpus.readers.opening import open_rows
from stages.workshop.corpus.readers.source import all_rows
from stages.workshop.corpus.rendering.tasks import FAMILIES, TASKS

Run = Callable[..., Any]
SMALL = ("--train", 30, "--heldout", 6, "--side", 40, "--set", "least_text=4")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "corpus"
    config = data_render.RenderConfig(train=70, heldout=8, side=48, least_text=5)
    result_of(data_render.run(config, out, threads=1))
    return out


def test_a_corpus_is_what_its_index_says(corpus: Path) -> None:
    artifact = open_artifact(corpus, "corpus")
    assert artifact.manifest is not None and artifact.manifest.stage == "data"
    index = json.loads((corpus / "index.json").read_text())
    for split, pictures in (("train", 70), ("heldout", 40)):
        rows = all_rows(open_rows(corpus, split=split))
        found = {
            "pictures": len({picture for row in rows for picture in row.pictures}),
            "rows": len(rows),
            "questions": dict(Counter(task for row in rows for task in row.tasks)),
        }
        assert found == index["splits"][split] == artifact.manifest.metrics["splits"][split]
        assert found["pictures"] == pictures
    assert set(index["splits"]["heldout"]["questions"].values()) == {8}


def test_splits_share_no_picture(corpus: Path) -> None:
    pixels = {
        split: {row.pictures[0].load().tobytes() for row in all_rows(open_rows(corpus, split=split))}
        for split in ("train", "heldout")
    }
    assert pixels["train"].isdisjoint(pixels["heldout"])


def test_evaluation_reads_it_and_a_guess_without_looking_is_poor(corpus: Path) -> None:
    held = read_questions(corpus, "heldout")
    assert Counter(question.task for question in held) == dict.fromkeys(
        ("colour", "shape", "place", "count", "word", "number", "table"), 8
    )
    blind = QuestionOnly(read_questions(corpus, "train"))
    texts = [question for question in held if question.task in ("word", "number", "table")]
    assert not any(blind.answer(question) == question.truth for question in texts)


def test_the_same_configuration_gives_the_same_digest_and_is_up_to_date(bluelm: Run, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for out, threads in ((one, 1), (other, 2)):
        done = bluelm("data", "render", *SMALL, "--seed", 5, "--threads", threads, "--out", out, "--json")
        assert done.code == 0, done.err
    assert open_artifact(one, "corpus").digest == open_artifact(other, "corpus").digest
    again = bluelm("data", "render", *SMALL, "--seed", 5, "--out", one, "--json")
    assert "up to date" in again.err
    assert again.json()["splits"] == done.json()["splits"]
    differs = bluelm("data", "render", *SMALL, "--seed", 6, "--out", one)
    assert differs.code == 2 and "seed" in differs.err
    forced = bluelm("data", "render", *SMALL, "--seed", 6, "--out", one, "--force", "--json")
    assert forced.code == 0
    assert open_artifact(one, "corpus").digest != open_artifact(other, "corpus").digest


def test_a_dry_run_promises_what_a_run_draws(bluelm: Run, tmp_path: Path) -> None:
    words = ("data", "render", "--task", "word", "--task", "count", *SMALL, "--out", tmp_path / "corpus", "--json")
    promised = bluelm(*words, "--dry-run")
    assert promised.code == 0 and not any(tmp_path.iterdir())
    drawn = bluelm(*words)
    assert promised.json()["splits"] == drawn.json()["splits"]
    assert (promised.json()["dry_run"], drawn.json()["dry_run"]) == (True, False)
    assert promised.json()["config"] == drawn.json()["config"]
    assert drawn.json()["bytes"] > 10_000 and promised.json()["bytes"] is None


def test_a_plan_of_a_shard_counts_what_it_would_draw_without_drawing(bluelm: Run) -> None:
    words = ("--task", "word", "--task", "table", "--task", "number", "--set", "weights={word: 2.5}", "--heldout", 0)
    drawn = {"word": 0, "table": 0, "number": 0}
    for shard in (1, 2, 3):
        part = bluelm("data", "render", *words, "--train", 1000, "--shard", f"{shard}/3", "--dry-run", "--json").json()
        questions = part["splits"]["train"]["questions"]
        assert sum(questions.values()) == part["splits"]["train"]["pictures"]
        drawn = {task: drawn[task] + questions[task] for task in drawn}
    whole = bluelm("data", "render", *words, "--train", 1000, "--dry-run", "--json").json()["splits"]["train"]
    # 1000 is 111 rounds of nine turns and one turn more.
    assert whole["questions"] == drawn and sorted(drawn.values()) == [222, 222, 556]
    huge = bluelm("data", "render", *words, "--train", 9 * 10**12, "--dry-run", "--json").json()["splits"]["train"]
    assert huge["questions"] == {"word": 5 * 10**12, "table": 2 * 10**12, "number": 2 * 10**12}


def test_the_table_for_people(bluelm: Run) -> None:
    done = bluelm("data", "render", "--task", "shape", "--train", 1234, "--dry-run")
    assert done.code == 0 and done.err == ""
    assert "shape" in done.out and "1,234" in done.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--task", "color"), ("There is no task 'color'", "Did you mean colour?")),
        (("--set", "backgrounds=[plaid]"), ("There is no background 'plaid'", "gradient")),
        (("--set", "least_cover=0.7"), ("least_cover is 0.7, most_cover 0.6",)),
        (("--set", "nameless_shapes=0.5"), ("nameless_colours is 0.6, nameless_shapes 0.5",)),
        (("--train", 0, "--heldout", 0), ("train and heldout are both 0",)),
        (("--set", "sides=3"), ("unknown key 'sides'", "side")),
        (("--set", "weights={wurd: 2}"), ("There is no family 'wurd'", "word")),
        (
            ("--set", "grids=[{cols: 1, rows: 1, share: 1, families: [word]}]"),
            ("No size in grids is for single-shape",),
        ),
        (("--set", "heldout_layouts=[table/gird]"), ("There is no layout 'table/gird'", "table/grid")),
        (
            ("--set", "heldout_layouts=[screen-home/round, screen-home/tiles]"),
            ("All layouts of screen-home are held out",),
        ),
        (("--set", "train_fonts=[Futura]"), ("There is no font 'Futura'", "Libertinus Serif")),
        (("--fonts", "nowhere"), ("There is no font in nowhere",)),
        (("--set", "weights={word: 1e300}"), ("weights.word: Input should be less than or equal to 100",)),
        (("--set", "most_text=1e300"), ("most_text: Input should be less than or equal to 2048",)),
        (("--set", "least_text=50"), ("least_text is 50.0, most_text 40.0",)),
        (("--shard", "3/2"), ("shard is 3, but there are 2 shards",)),
        (("--shard", "half"), ("--shard half is not K/N", "1/4")),
        (("--task", "receipt-total", "--side", 60, "--dry-run"), ("No page of receipt fits 60 x 60 pixels",)),
        (("--side", 3), ("side: Input should be greater than or equal to 16",)),
        ((), ("--out is missing", "--dry-run")),
    ],
)
def test_what_cannot_work_is_said(bluelm: Run, words: tuple[object, ...], said: tuple[str, ...]) -> None:
    done = bluelm("data", "render", *words)
    assert done.code == 2 and done.out == ""
    assert all(text in done.err for text in said), done.err


def test_help_has_an_example(bluelm: Run) -> None:
    assert "bluelm data render --task colour" in bluelm("data", "render", "--help").out
    assert "render" in bluelm("data", "--help").out


def test_progress_is_told_for_every_picture(tmp_path: Path) -> None:
    config = data_render.RenderConfig(tasks=("colour",), train=5, heldout=3, side=32, nameless_colours=0)
    events = list(data_render.run(config, tmp_path / "corpus", threads=1))
    steps = [(event.label, event.done, event.total) for event in events if isinstance(event, Progress)]
    assert steps == [("drawing train", n, 5) for n in range(1, 6)] + [("drawing heldout", n, 3) for n in range(1, 4)]


def test_the_shipped_recipe_asks_what_the_demo_needs() -> None:
    config = load_config(data_render.RenderConfig, recipe=str(recipe_path("tiny/data.yaml")))
    assert {"colour", "shape"} <= set(config.tasks)
    assert data_render.plan(config).index.splits["heldout"].questions["colour"] >= 500
    assert (config.least_cover, config.most_cover) == (0.15, 0.6)
    assert "plain" not in config.backgrounds


def test_shards_drawn_apart_are_the_set_drawn_at_once(bluelm: Run, tmp_path: Path) -> None:
    words = ("data", "render", "--task", "word", "--task", "count", *SMALL, "--json")
    assert bluelm(*words, "--out", tmp_path / "whole").code == 0
    for shard in (1, 2, 3):
        assert bluelm(*words, "--shard", f"{shard}/3", "--out", tmp_path / f"part-{shard}").code == 0
    for split in ("train", "heldout"):
        parts = [json.loads((tmp_path / f"part-{shard}" / f"{split}.json").read_text()) for shard in (1, 2, 3)]
        assert [row for part in parts for row in part] == json.loads((tmp_path / "whole" / f"{split}.json").read_text())
        assert all(parts)
    pictures = [
        {file.name: file.read_bytes() for file in (tmp_path / name / "images").iterdir()}
        for name in ("whole", "part-1", "part-2", "part-3")
    ]
    assert pictures[0] == pictures[1] | pictures[2] | pictures[3]
    assert len(pictures[0]) == sum(map(len, pictures[1:]))


def test_the_manifest_names_the_fonts(bluelm: Run, data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "pages"
    words = ("--task", "foreign-text", "--train", 12, "--heldout", 4, "--side", 160, "--fonts", data_dir / "fonts")
    done = bluelm("data", "render", *words, "--out", out, "--json")
    assert done.code == 0, done.err
    manifest = open_artifact(out, "corpus").manifest
    assert manifest is not None
    fonts = {font["name"]: font for font in manifest.metrics["fonts"]}
    assert fonts["Sarabun"]["scripts"] == ["latin", "latin-extended", "vietnamese", "thai"]
    assert fonts["Libertinus Serif"]["files"] == {}
    digests = {digest for font in fonts.values() for digest in font["files"].values()}
    assert digests == {parent.digest for parent in manifest.parents} and len(digests) == 5
    differs = bluelm("data", "render", *words[:-2], "--out", out)
    assert differs.code == 2 and "it was made from other inputs" in differs.err


@pytest.mark.parametrize("name", ["render.yaml", "render-small.yaml"])
def test_the_shipped_recipes_draw_every_family(name: str) -> None:
    config = load_config(data_render.RenderConfig, recipe=str(recipe_path(name)))
    assert set(config.tasks) == set(TASKS)
    layouts = {layout.split("/")[0] for layout in config.heldout_layouts}
    assert layouts == {family for family, drawn in FAMILIES.items() if drawn.layouts}
    assert data_render.plan(config).index.splits["heldout"].questions["word"] == config.heldout
    assert set(config.train_fonts).isdisjoint(config.heldout_fonts)
