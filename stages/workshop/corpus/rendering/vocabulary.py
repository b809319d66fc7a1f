"""Words and numbers to print."""

from __future__ import annotations

import numpy as np

from stages.workshop.corpus.rendering.split import Split, belongs

_DIGITS = 4

_WORDS = """
    able acid apple april arm army atom aunt baby back ball band bank barn basin basket bath beach bean bear bed bell
    belt bench bird blade block board boat body bone book boot bottle bowl box branch brass bread breath brick bridge
    brush bucket bulb butter button cake camera card carpet carriage cart castle cat chain cheese chest chin church
    circle clock cloth cloud coat collar comb cord corner cotton cow cup curtain cushion daisy desk dinner dog door
    drain drawer dress drop ear earth east egg engine eye face farm feather field finger fire fish flag floor flower
    fly fork forest fox frame friend fruit garden garlic ghost girl glass glove goat gold grain grass gun hair hammer
    hand harbour hat head heart hill hook horn horse hospital hour house ice ink iron island jar jewel juice jungle
    kettle key kitchen knee knife knot lake lamp leaf leather leg lemon letter library light lime line lion lip lock
    map market meal metal milk mill mint monkey month moon morning mouth music nail neck needle nest net night north
    nose nut oak ocean office oil olive onion orange oven owl paint paper park pearl pen pencil pepper piano picture
    pig pin pipe planet plate pocket pond pot potato prison pump queen rail rain rat rice ring river road roof room
    root rope rose sail salt sand school scissors screw sea seat seed shelf ship shirt shoe silk silver sister skin
    skirt snake snow soap sock soup south spade sponge spoon spring square stamp star station stem stick stone store
    street sugar sun table tail tent thread throat thumb ticket tiger toe tongue tooth tower town train tray tree
    trousers tulip turtle umbrella valley vase village violin wall watch water wave wheel whistle willow window wine
    wing winter wire wolf wood wool worm yard zebra
"""
WORDS: tuple[str, ...] = tuple(_WORDS.split())


def draw_word(rng: np.random.Generator, split: Split) -> str:
    """A word that belongs to this split."""
    while True:
        word = WORDS[rng.integers(len(WORDS))]
        if belongs(word, split):
            return word


def draw_number(rng: np.random.Generator, split: Split) -> str:
    """A number of two to four digits that belongs to this split."""
    while True:
        digits = int(rng.integers(2, _DIGITS + 1))
        number = str(rng.integers(10 ** (digits - 1), 10**digits))
        if belongs(number, split):
            return number
