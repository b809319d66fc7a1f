"""The page in a real browser over a slow fake model: shown, asked, streamed, stopped, refused, gone."""

from __future__ import annotations

import re
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from stages.artifacts.errors import UsageError
from stages.device.imaging.geometry import Size
from stages.device.runtime.cache import overflow
from stages.device.serve.access import Access, hosts_of

pytestmark = pytest.mark.slow

LAST = "document.querySelector('.turn:last-of-type')"
WORDS = ("It shows", " **two", " shapes**", ":\n\n- a ring", ",\n- a star", ".")


def state(browser: Any, wanted: str) -> None:
    browser.until(f"{LAST}?.dataset.state === '{wanted}'")


def ask(browser: Any, text: str) -> None:
    browser.run("document.getElementById('question').focus()")
    browser.write(text)
    browser.press("Enter")


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    path = tmp_path / "a wide picture.png"
    picture = Image.new("RGB", (300, 100), "white")
    picture.paste((200, 30, 30), (10, 10, 90, 90))
    picture.save(path)
    return path


def test_a_picture_is_read_while_its_question_is_typed(start: Any, fake: Any, chromium: Any, drawn: Path) -> None:
    model = fake(words=WORDS)
    model.gate.clear()
    live = start(model)
    chromium.look(390, 780)
    chromium.open(live.url)
    chromium.until("document.querySelector('h1').innerText === 'fake'")
    chromium.choose("#files", drawn)
    # The decision is there before the first tile is.
    plan = model.tiling(Size(*Image.open(drawn).size))
    chromium.until(f"document.querySelectorAll('.tiles i').length === {plan.grid.area}")
    assert chromium.run("document.querySelectorAll('.tiles [data-state=done]').length") == 0
    ratio = chromium.run("(b => b.width / b.height)(document.querySelector('.stage').getBoundingClientRect())")
    assert ratio == pytest.approx(plan.canvas.width / plan.canvas.height, rel=0.02)
    chromium.write("What does it")  # the focus went to the question by itself
    model.tile_s = 0.05
    model.gate.set()
    chromium.until("document.querySelectorAll('.tiles [data-state=done]').length > 0")
    chromium.write(" show?")
    chromium.until("document.querySelector('.picture').dataset.state === 'ready'")
    assert chromium.run("document.querySelectorAll('.tiles [data-state=done]').length") == plan.grid.area
    assert f"{plan.tokens} tokens" in chromium.text("figcaption")
    assert live.service.metrics.jobs.value("encoded") == 1
    chromium.press("Enter")
    state(chromium, "answered")
    assert model.started == [str([{"type": "image"}, {"type": "text", "text": "What does it show?"}])]
    assert live.service.metrics.pictures.value("cache") == 1  # nothing was encoded a second time
    assert chromium.text(".said") == "What does it show?"
    assert chromium.run("document.querySelector('.text strong').innerText") == "two shapes"
    assert chromium.run("document.querySelectorAll('.text li').length") == 2
    assert re.fullmatch(r"6 tokens · first after [\d.]+ s( · [\d.,]+ a second)? · prompt 14", chromium.text(".figures"))
    assert chromium.run("document.documentElement.scrollWidth") <= 390
    assert chromium.complaints() == []
    assert {url for url in chromium.requested() if not url.startswith((live.url, f"blob:{live.url}"))} == set()


def test_words_are_seen_as_they_come_and_escape_stops_them(start: Any, fake: Any, chromium: Any) -> None:
    model = fake(words=WORDS, pause=60.0)  # after the first words, until it is stopped
    live = start(model)
    chromium.open(live.url)
    ask(chromium, "Hello")
    chromium.until("document.querySelector('.text').innerText.includes('It shows')")
    assert chromium.run(f"{LAST}.dataset.state") == "asking"
    assert chromium.run("document.getElementById('send').hidden && !document.getElementById('stop').hidden")
    assert chromium.run("document.activeElement.id") == "question"  # one can type ahead
    chromium.press("Escape")
    state(chromium, "stopped")
    live.until(lambda: live.service.metrics.jobs.value("cancelled") == 1)
    said = chromium.run("document.querySelector('.text').innerText")
    model.pause = 0.0
    ask(chromium, "And now?")
    state(chromium, "answered")
    assert "stopped" in chromium.text(".figures") and said.startswith("It shows")
    assert model.started == [str([{"type": "text", "text": text}]) for text in ("Hello", "And now?")]
    chromium.click("#new")
    chromium.until("document.querySelectorAll('.turn').length === 0")
    assert not chromium.run("document.getElementById('welcome').hidden")


def test_what_goes_wrong_is_told_and_can_be_tried_again(start: Any, fake: Any, chromium: Any, tmp_path: Path) -> None:
    model = fake()
    live = start(model, limits={"queue": 1, "picture_mb": 0.05, "body_mb": 0.02})
    chromium.open(live.url)
    model.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        busy: list[Future[Any]] = []
        for count in (1, 2):
            hello = {"messages": [{"role": "user", "content": "Hello"}]}
            busy.append(pool.submit(httpx2.post, live.url + "/v1/chat/completions", json=hello, timeout=60))
            live.until(lambda count=count: live.service.metrics.accepted.value() == count)
            live.until(lambda: live.service.worker.running)
        ask(chromium, "Hello")
        state(chromium, "failed")
        assert "The server is busy: 1 requests wait" in chromium.text(".problem")
        model.gate.set()
        assert [job.result().status_code for job in busy] == [200, 200]
    chromium.click(".problem button")
    state(chromium, "answered")
    large = tmp_path / "large.bmp"
    Image.new("RGB", (200, 200)).save(large)
    chromium.choose("#files", large)
    chromium.until("document.querySelector('#pictures .picture').dataset.state === 'failed'")
    assert "larger than the 50,000 bytes" in chromium.text("#pictures figcaption")
    ask(chromium, "And this?")
    state(chromium, "failed")
    assert "larger than the 20,000 bytes" in chromium.text(".turn:last-of-type .problem")
    live.server.stop()
    live.thread.join(10)
    chromium.click(".turn:last-of-type .problem button")
    chromium.until("document.querySelector('.turn:last-of-type .problem').innerText.includes('does not answer')")


def test_the_models_own_errors_and_a_broken_stream(
    start: Any, fake: Any, chromium: Any, png: Any, tmp_path: Path
) -> None:
    model = fake(pause=60.0)
    live = start(model)
    chromium.open(live.url)
    (tmp_path / "bad.png").write_bytes(png(13, 13))
    chromium.choose("#files", tmp_path / "bad.png")
    chromium.until("document.querySelector('.picture').dataset.state === 'failed'")
    assert "pixels are broken" in chromium.text("figcaption")
    chromium.click(".remove")
    chromium.until("document.querySelectorAll('.picture').length === 0")
    ask(chromium, "Hello")
    chromium.until("document.querySelector('.text').innerText.includes('one')")
    live.server.stop()
    state(chromium, "failed")
    assert "one" in chromium.text(".text") and chromium.text(".problem p")
    assert chromium.run("document.querySelector('.problem').getAttribute('role')") == "alert"


def test_the_oldest_turns_are_forgotten_when_the_context_is_full(start: Any, fake: Any, chromium: Any) -> None:
    model = fake()
    full = 3

    def check(messages: Any, _: Any) -> None:
        if len(messages) > full:
            raise overflow(3000, 2048)

    model.check = check
    live = start(model)
    chromium.open(live.url)
    for count in range(1, 4):
        ask(chromium, f"Question {count}")
        chromium.until(f"document.querySelectorAll('.turn[data-state=answered]').length === {count}")
    forgotten = "[...document.querySelectorAll('.turn')].map(turn => turn.classList.contains('forgotten'))"
    assert chromium.run(forgotten) == [True, False, False]
    full = 0
    ask(chromium, "Question 4")
    state(chromium, "failed")
    assert "this model holds 2048" in chromium.text(".turn:last-of-type .problem")


def test_a_key_is_asked_for_and_kept_for_the_tab(start: Any, fake: Any, chromium: Any) -> None:
    live = start(fake(), access=Access("secret", hosts_of("127.0.0.1")))
    chromium.open(live.url)
    chromium.until("document.getElementById('door').open")
    chromium.write("wrong")
    chromium.press("Enter")
    chromium.until("document.getElementById('key-problem').innerText.includes('Incorrect')")
    chromium.write("secret")  # the wrong one is selected
    chromium.press("Enter")
    chromium.until("!document.getElementById('door').open")
    ask(chromium, "Hello")
    state(chromium, "answered")
    chromium.open(live.url)
    chromium.until("document.querySelector('h1').innerText === 'fake'")
    assert not chromium.run("document.getElementById('door').open")


@pytest.mark.parametrize("dark", [False, True])
def test_it_can_be_used_by_keys_alone_and_read_in_both_themes(start: Any, fake: Any, chromium: Any, dark: bool) -> None:
    live = start(fake(refusing=UsageError("It is refused.", "For a test.", "Nothing.")))
    chromium.look(dark=dark, still=True)
    chromium.open(live.url)
    ask(chromium, "Hello")
    state(chromium, "failed")
    reached = set()
    for _ in range(12):
        chromium.press("Tab")
        reached.add(chromium.run("document.activeElement.id || document.activeElement.innerText"))
    assert {"new", "choose", "question", "Try again"} <= reached
    assert chromium.run("document.getAnimations().length") == 0
    for selector in (".said", ".problem p", "#new", "textarea"):
        assert chromium.run(_CONTRAST % selector) >= 4.5, selector
    unnamed = "[...document.querySelectorAll('button')].filter(b => !b.innerText.trim() && !b.ariaLabel).length"
    assert chromium.run(unnamed) == 0


# The WCAG 2 contrast of an element's text against the first ground below it.
_CONTRAST = """(() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3)
      .map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const element = document.querySelector('%s');
  let ground = element;
  while (getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
  const [a, b] = [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor].map(light);
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
})()"""
