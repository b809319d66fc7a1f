"""Names of people, streets, towns, shops and goods: made up of common words, each of which belongs to one split."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from stages.workshop.corpus.rendering.page import PageOverflowError
from stages.workshop.corpus.rendering.split import Split, belongs

_FIRST = """
    Ada Agnes Albert Alice Amir Anna Arthur Beata Ben Bruno Carla Carmen Clara Daniel Daria David Dina Edgar Elena Elias
    Ella Emil Emma Erik Eva Felix Fiona Frank Frida Gina Greta Hanna Hassan Hugo Ida Igor Ines Iris Jakob Jana Jonas
    Julia Karl Karim Lara Lena Leo Lina Lucas Maria Marko Martha Max Mia Mina Nadia Nils Nina Noah Nora Olga Omar Oscar
    Otto Paula Peter Pia Ravi Rita Robert Rosa Ruth Samir Sara Simon Sofia Stella Sven Tara Theo Thomas Tina Vera
    Victor Viola Walter Wanda Yara Yusuf Zoe
"""
_LAST = """
    Adams Arnold Baker Barnes Becker Bell Berg Blake Bond Bose Brandt Brown Burns Carter Chen Clark Cole Cook Costa
    Cruz Dahl Diaz Dixon Dunn Ellis Evans Falk Fisher Ford Foster Fuchs Garcia Gibson Gomez Grant Gray Haas Hall Hansen
    Harris Hart Hayes Hill Holm Hunt Ito Jansen Jones Kaya Keller Kim King Klein Knight Koch Kumar Lang Larsen Lewis
    Lopez Lund Marsh Martin Mason Meyer Miller Moore Moreno Murphy Nash Nielsen Novak Olsen Owens Palmer Park Perez
    Price Quinn Reed Reyes Rossi Roth Ryan Sato Schmidt Shah Silva Singh Smith Stone Suzuki Tanaka Taylor Torres Vega
    Wagner Walsh Ward Weber West White Wolf Wood Young Ziegler
"""
_TOWNS = """
    Alton Ashford Bergen Bolton Bremen Brighton Bristol Burton Calais Cardiff Chester Como Cordoba Cork Derby Dover
    Dresden Durham Exeter Ghent Girona Graz Halifax Hamburg Hanover Harlow Helsinki Ipswich Kassel Kendal Kiel Krakow
    Lancaster Leeds Leiden Leipzig Lima Lincoln Linz Lisbon Lund Lyon Mainz Malmo Milton Modena Monza Nantes Newport
    Norwich Odense Oporto Oslo Oxford Padua Parma Pisa Porto Preston Ravenna Reading Riga Rostock Salem Salzburg Seville
    Siena Sofia Stafford Stratford Tampere Tartu Toledo Trento Trier Turin Turku Utrecht Verona Vienna Vilnius Warsaw
    Weston Windsor Worms York Zagreb Zurich
"""
_PLACES = """
    Abbey Acorn Anchor Apple Bank Bay Beach Birch Bridge Brook Canal Castle Cedar Cherry Church Cliff Clover Coral Crown
    Dale Elm Falcon Field Forest Fountain Fox Garden Gate Grove Harbour Hazel Heron High Hill Holly Ivy Juniper Lake
    Lark Laurel Lily Lime Linden Main Maple Market Meadow Mill Moss Oak Olive Orchard Otter Park Pearl Pine Poplar Queen
    Raven River Robin Rose Rowan Sage School Silver South Spring Station Summer Swan Temple Thistle Tower Valley Victory
    Vine Walnut Water Well Willow Windmill Winter
"""
# Tries per text before there are not enough different ones.
_TRIES = 60
_ROADS = ("Street", "Road", "Lane", "Avenue", "Way", "Square", "Row", "Drive", "Court", "Close")
_SHOPS = """
    Bakery Bazaar Bikes Bistro Books Butcher Cafe Camera Centre Corner Dairy Deli Diner Drinks Electronics Express Farm
    Fashion Flowers Foods Fruit Gallery Gifts Grill Grocery Hardware Kiosk Kitchen Market Mart Music Office Outlet Paper
    Pharmacy Pizza Seafood Shoes Shop Snacks Sports Stationery Store Supermarket Supply Tea Tools Toys Trading
"""
_KINDS = """
    baked bitter black blue brown cheap classic clear cold cotton crisp dark double dried fine fresh frozen golden
    green grilled hard heavy hot iced instant jumbo large light little local long mild mini mixed new orange organic
    pink plain premium purple raw red roasted round royal salted sharp short silver simple single sliced small smoked
    soft sour special spicy spring square steel strong sugar summer super sweet thick thin tiny tropical twin vanilla
    warm white whole wild winter wooden yellow
"""
_GOODS = """
    almonds apples bacon bagel bananas battery beans beer biscuit blanket book bottle bowl bread brush burger butter
    cable cake candle candy carrots cereal charger cheese cherries chicken chips chocolate cider cocoa coffee comb
    cookies cream cucumber cup curry dates detergent donut dough eggs fish flour folder fork garlic ginger glass
    gloves glue grapes ham hammer honey jam juice kettle ketchup kiwi knife lamp lemon lentils lettuce magazine mango
    melon milk mint muffin mug mushrooms mustard nails napkins noodles notebook nuts oil olives onions oranges pan
    paper pasta peach peanuts pears peas pen pencil pepper pickles pie pillow pizza plate plum popcorn potatoes
    pretzel pudding radish raisins rice rope salad salami salmon salt sandwich sausage scissors shampoo soap socks
    soda soup spinach sponge spoon steak stapler sugar sushi syrup tape tea toast tofu tomatoes towel tray tuna
    vinegar waffle walnuts water wine wire wrench yogurt
"""


@functools.cache
def of_split(texts: tuple[str, ...], split: Split) -> tuple[str, ...]:
    """Those of the texts that belong to a split, whatever their case."""
    return tuple(text for text in texts if belongs(text.lower(), split))


def draw_from(rng: np.random.Generator, split: Split, texts: tuple[str, ...]) -> str:
    """One of the texts that belongs to a split."""
    own = of_split(texts, split)
    return own[rng.integers(len(own))]


def draw_distinct(count: int, draw: Callable[[], str], taken: Sequence[str] = ()) -> list[str]:
    """That many texts, none of which contains another one or one that is taken, whatever their case.

    So a question that names one of them is about that one alone ("Date" beside "Date of birth" might be either).

    Raises:
        PageOverflowError: there are not enough of them.
    """
    found = list(taken)
    for _ in range(_TRIES * count):
        if len(found) == count + len(taken):
            return found[len(taken) :]
        text = draw()
        if not any(text.lower() in other.lower() or other.lower() in text.lower() for other in found):
            found.append(text)
    raise PageOverflowError


@functools.cache
def words_of(block: str) -> tuple[str, ...]:
    """The words of a block of them."""
    return tuple(block.split())


def draw_person(rng: np.random.Generator, split: Split) -> str:
    """A first and a last name."""
    return f"{draw_from(rng, split, words_of(_FIRST))} {draw_from(rng, split, words_of(_LAST))}"


def draw_first_name(rng: np.random.Generator, split: Split) -> str:
    """A first name."""
    return draw_from(rng, split, words_of(_FIRST))


def draw_town(rng: np.random.Generator, split: Split) -> str:
    """A town."""
    return draw_from(rng, split, words_of(_TOWNS))


def draw_address(rng: np.random.Generator, split: Split) -> str:
    """A house number and a street."""
    road = _ROADS[rng.integers(len(_ROADS))]
    return f"{rng.integers(1, 240)} {draw_from(rng, split, words_of(_PLACES))} {road}"


def draw_shop(rng: np.random.Generator, split: Split) -> str:
    """A shop's name of two words, or of three with an owner."""
    kind = draw_from(rng, split, words_of(_SHOPS))
    if rng.random() < 0.25:
        return f"{draw_from(rng, split, words_of(_LAST))} & {draw_from(rng, split, words_of(_LAST))} {kind}"
    return f"{draw_from(rng, split, words_of(_PLACES + _LAST))} {kind}"


def draw_goods(rng: np.random.Generator, split: Split, letters: int) -> str:
    """Something to buy, of one or two words; the first is left out where both have more letters than that."""
    name = draw_from(rng, split, words_of(_GOODS))
    kind = draw_from(rng, split, words_of(_KINDS))
    both = f"{kind} {name}"
    return (both if len(both) <= letters and rng.random() < 0.75 else name).capitalize()
