"""What phone screens say: names of apps, settings, buttons, list items and messages; each belongs to one split."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stages.workshop.corpus.rendering.figures import draw_cents, draw_date, draw_time, draw_whole, money
from stages.workshop.corpus.rendering.names import (
    draw_first_name,
    draw_from,
    draw_goods,
    draw_person,
    draw_shop,
    draw_town,
    words_of,
)
from stages.workshop.corpus.rendering.split import Split

SETTINGS = (
    *("Wi-Fi", "Bluetooth", "Airplane mode", "Location", "Dark mode", "Auto-rotate", "Notifications", "Vibration"),
    *("Hotspot", "Battery saver", "Data saver", "Night light", "Screen saver", "Auto-sync", "Backup", "Sounds"),
    *("Do not disturb", "Haptics", "Auto-lock", "Face unlock", "Fingerprint", "Touch sounds", "Captions", "Zoom"),
    *("Large text", "Bold text", "Mono audio", "Voice control", "Auto-update", "Flash alert", "Roaming", "VPN", "NFC"),
    *("Printing", "Cast", "Nearby share", "Keep awake", "Live wallpaper", "Caller ID", "Call waiting", "Voicemail"),
    *("Read receipts", "Typing sounds", "Auto-correct", "Spell check", "Predictions", "Swipe typing", "Autoplay"),
    *("Subtitles", "HDR", "Grid lines", "Mirror selfies", "Geotags", "Timer", "Portrait mode", "Cloud storage"),
    *("Offline maps", "Traffic", "Reminders", "Weather alerts", "News", "Step counter", "Sleep tracking", "Cookies"),
    *("Parental lock", "Guest mode", "Private mode", "Pop-ups", "Ad blocker", "Autofill", "Passwords", "Birthdays"),
    *("Weekly report", "Newsletters", "Speech", "Gestures", "Shortcuts", "Widgets", "Smart lock", "Car mode"),
)
BUTTONS = (
    *("Save", "Send", "Share", "Delete", "Discard", "Keep", "Open", "Close", "Retry", "Skip", "Accept", "Decline"),
    *("Allow", "Deny", "Install", "Update", "Later", "Cancel", "Continue", "Back", "Next", "Finish", "Download"),
    *("Upload", "Call", "Reply", "Forward", "Archive", "Print", "Copy", "Paste", "Cut", "Undo", "Redo", "Buy", "Rent"),
    *("Order", "Pay", "Book", "Confirm", "Edit", "Rename", "Move", "Merge", "Join", "Leave", "Follow", "Block", "Mute"),
    *("Report", "Search", "Filter", "Sort", "Refresh", "Reset", "Restore", "Stop", "Start", "Pause", "Play", "Record"),
    *("Scan", "Sign in", "Sign out", "Register", "Subscribe", "Connect", "Pair", "Sync", "Export", "Import", "Submit"),
    *(
        "Agree",
        "Dismiss",
        "Snooze",
        "Remind me",
        "Show",
        "Hide",
        "Unlock",
        "Apply",
        "Ignore",
        "Try again",
        "Learn more",
    ),
    *("Not now", "Got it", "Maybe", "View", "Add", "Remove", "Rate", "Donate", "Invite", "Log in", "Turn on", "Enable"),
)
_APPS = """
    Alarm Albums Atlas Audio Bank Books Browser Calculator Calendar Camera Chess Clock Cloud Compass Contacts Cooking
    Courses Diary Dictionary Doctor Drive Duel Editor Email Files Finance Fitness Flights Football Gallery Games Garden
    Health Hotels Jobs Journal Keyboard Lessons Library Mail Maps Market Meetings Memo Messages Movies Museum Music News
    Notes Office Orders Paint Parking Phone Photos Piano Podcasts Poker Post Puzzle Quiz Radio Recipes Recorder Remote
    Runner School Settings Shop Sketch Stocks Store Studio Sudoku Tasks Taxi Tickets Tides Torch Trains Translate Travel
    Tuner Vault Video Voice Wallet Weather Workout Yoga
"""
_THINGS = """
    album archive article backup booking calendar channel chapter comment contact course document draft drawing event
    file folder game group invoice journal letter list map meeting memo message movie note order page password payment
    photo picture playlist poem poster profile project recipe record report reservation review route song story ticket
    timer video vote
"""


def draw_setting(rng: np.random.Generator, split: Split) -> str:
    """Something that is on or off."""
    return draw_from(rng, split, SETTINGS)


def draw_button(rng: np.random.Generator, split: Split) -> str:
    """What a button says."""
    return draw_from(rng, split, BUTTONS)


def draw_app(rng: np.random.Generator, split: Split) -> str:
    """An app's name."""
    return draw_from(rng, split, words_of(_APPS))


def draw_title(rng: np.random.Generator, split: Split) -> str:
    """The title of a screen."""
    app = draw_app(rng, split)
    return app if rng.random() < 0.5 else f"{draw_first_name(rng, split)}'s {app.lower()}"


def draw_request(rng: np.random.Generator, split: Split) -> str:
    """What a dialog asks."""
    thing = draw_from(rng, split, words_of(_THINGS))
    return f"{draw_button(rng, split)} {thing}?" if rng.random() < 0.6 else f"{thing.capitalize()} not found"


def draw_explanation(rng: np.random.Generator, split: Split) -> str:
    """A sentence beneath what a dialog asks."""
    thing, other = (draw_from(rng, split, words_of(_THINGS)) for _ in range(2))
    name, app = draw_first_name(rng, split), draw_app(rng, split)
    sentences = (
        f"The {thing} is part of {app}.",
        f"{name} shared this {thing} with you.",
        f"{app} will use the {thing} of {name}.",
        f"Your {thing} and your {other} stay on this phone.",
        f"This {thing} was last used in {app}.",
    )
    return sentences[rng.integers(len(sentences))]


def draw_message(rng: np.random.Generator, split: Split) -> str:
    """What someone writes in a chat."""
    goods, thing = draw_goods(rng, split, 14).lower(), draw_from(rng, split, words_of(_THINGS))
    texts: tuple[Callable[[], str], ...] = (
        lambda: f"See you at {draw_time(rng, split)}",
        lambda: f"Bring the {goods}",
        lambda: f"{draw_first_name(rng, split)} is in {draw_town(rng, split)}",
        lambda: f"No {goods} left",
        lambda: f"I like the {thing}",
        lambda: f"Send me the {thing}",
        lambda: f"Not without {draw_first_name(rng, split)}",
        lambda: f"It costs {money(draw_cents(rng, split))}",
        lambda: f"Platform {draw_whole(rng, split, 10, 100)}",
        lambda: f"Back from {draw_town(rng, split)}",
    )
    return texts[rng.integers(len(texts))]()


def draw_items(rng: np.random.Generator) -> Callable[[np.random.Generator, Split], str]:
    """A kind of thing that one list holds."""
    kinds = (draw_person, draw_shop, draw_town, draw_app, lambda rng, split: draw_goods(rng, split, 16))
    return kinds[rng.integers(len(kinds))]


def draw_details(rng: np.random.Generator) -> Callable[[np.random.Generator, Split], str]:
    """A kind of thing that stands beside every item of one list."""
    kinds = (
        draw_time,
        lambda rng, split: money(draw_cents(rng, split)),
        lambda rng, split: str(draw_whole(rng, split, 2, 1000)),
        draw_date,
        draw_town,
    )
    return kinds[rng.integers(len(kinds))]
