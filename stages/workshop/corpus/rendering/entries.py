"""What stands in the fields, boxes and tables of a form: each label and each value belongs to one split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from stages.workshop.corpus.rendering.figures import (
    draw_cents,
    draw_code,
    draw_date,
    draw_phone,
    draw_time,
    draw_whole,
    money,
)
from stages.workshop.corpus.rendering.names import (
    draw_address,
    draw_distinct,
    draw_from,
    draw_goods,
    draw_person,
    draw_town,
    words_of,
)
from stages.workshop.corpus.rendering.page import PageOverflowError
from stages.workshop.corpus.rendering.split import Split

_LABELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "person": (
            *("Name", "Applicant", "Patient", "Tenant", "Owner", "Contact person", "Signatory", "Manager", "Employee"),
            *("Guest", "Student", "Teacher", "Parent", "Guardian", "Driver", "Passenger", "Author", "Supervisor"),
            *("Witness", "Customer", "Client", "Buyer", "Seller", "Sender", "Recipient", "Member", "Doctor"),
            *("Insured person", "Director", "Landlord", "Agent", "Trainer"),
        ),
        "date": (
            *("Date of birth", "Date", "Issued on", "Expires", "Valid until", "Arrival", "Departure", "Start date"),
            *("End date", "Due date", "Delivery date", "Order date", "Signed on", "Entry date", "Hired on"),
            *("Last visit", "Next visit", "Renewal date", "Booked on", "Check-in", "Check-out", "Completed on"),
        ),
        "code": (
            *("Invoice no.", "Customer no.", "Policy no.", "Order no.", "Passport no.", "Account no.", "Licence no."),
            *("Booking code", "Reference", "Serial no.", "Case no.", "Member ID", "Tax ID", "Vehicle no.", "File no."),
            *("Permit no.", "Card no.", "Room code", "Student ID", "Batch no.", "Ticket no.", "Claim no."),
        ),
        "town": (
            *("City", "Town", "Place of birth", "Destination", "Branch", "Place of issue", "Home town", "Location"),
            *("Port of entry", "Work place", "Court", "Depot", "Region", "Station", "Airport", "Warehouse", "Campus"),
        ),
        "address": (
            *("Address", "Street", "Home address", "Delivery address", "Billing address", "Office address"),
            *(
                "Mailing address",
                "Work address",
                "Site address",
                "Registered office",
                "Return address",
                "Meeting point",
            ),
        ),
        "phone": (
            *("Phone", "Mobile", "Telephone", "Fax", "Emergency phone", "Work phone", "Home phone", "Contact number"),
            *("Hotline", "Office phone", "Extension", "Pager", "Private line", "Front desk"),
        ),
        "amount": (
            *("Amount", "Fee", "Deposit", "Rent", "Salary", "Price", "Balance", "Budget", "Premium", "Total fee"),
            *("Discount", "Refund", "Insured sum", "Monthly rate", "Advance", "Penalty", "Expenses", "Credit", "Loan"),
        ),
        "number": (
            *("Age", "Persons", "Rooms", "Children", "Pages", "Copies", "Floor", "Weight (kg)", "Height (cm)"),
            *("Mileage", "Seats", "Nights", "Quantity", "Distance (km)", "Years", "Hours", "Units", "Parcels"),
        ),
        "time": (
            *("Time", "Pick-up time", "Opening time", "Closing time", "Boarding", "Begin", "End", "Appointment"),
            *("Break", "Night shift", "Day shift", "Check-in time", "Curfew", "Call time"),
        ),
    }
)
_VALUES: Mapping[str, Callable[[np.random.Generator, Split], str]] = MappingProxyType(
    {
        "person": draw_person,
        "date": draw_date,
        "code": draw_code,
        "town": draw_town,
        "address": draw_address,
        "phone": draw_phone,
        "amount": lambda rng, split: money(draw_cents(rng, split)),
        "number": lambda rng, split: str(draw_whole(rng, split, 2, 400)),
        "time": draw_time,
    }
)
_SUBJECTS = words_of(
    """
    Rental Travel Membership Visitor Parking Library Medical School Hotel Insurance Customs Export Delivery Repair
    Warranty Vaccination Leave Expense Training Building Garden Sports Music Camping Boat Vehicle Pet Wedding Catering
    Moving Cleaning Safety Fire Water Energy Waste Internet Credit Housing Student Passport Fishing Hunting Event Guest
    Donation Supplier Tenant Kitchen Laboratory Workshop
    """
)
_PAPERS = ("form", "application", "registration", "request", "record", "card", "sheet", "order", "permit", "report")
_GROUPS = words_of(
    """
    Delivery Payment Status Service Contact Period Size Transport Room Meal Language Priority Condition Purpose
    Class Season Material Colour Access Coverage Schedule Storage Handling Reason Result
    """
)
OPTIONS = words_of(
    """
    Express Standard Pickup Courier Cash Card Invoice Transfer Cheque Single Married Divorced Widowed New Used Urgent
    Normal Newsletter Insurance Breakfast Lunch Dinner Parking Vegetarian Vegan Smoker Email Letter Daily Weekly Monthly
    Yearly Small Medium Large Train Bus Car Plane Ferry Bicycle Double Suite Dormitory English French German Spanish
    Low High Damaged Repaired Business Holiday Study Research Economy First Winter Summer Spring Autumn Wood Steel Glass
    Plastic Stairs Lift Ramp Basic Full Partial Morning Evening Night Weekend Cooled Dry Frozen Fragile Gift Return
    Exchange Refund Passed Failed Pending Private Public Shared Local Abroad Online Indoor Outdoor Adult Child Senior
    Student Member Guest Approved Rejected Open Closed
    """
)
_COLUMNS = words_of(
    """
    Quantity Price Weight Length Width Height Volume Hours Rate Stock Score Points Ordered Delivered Returned Sold
    Paid Open Damaged Size Packed Missing Received Planned Actual Units Boxes Pallets Discount Shelf Page
    """
)
_MOST_TABLE_ROWS, _MOST_TABLE_COLUMNS = 6, 3
_TRIES = 40


@dataclass(frozen=True)
class Field:
    """A label and what is entered for it."""

    label: str
    value: str


@dataclass(frozen=True)
class Choice:
    """A group of boxes; `ticked` are places in `options`. `single` groups have exactly one ticked."""

    label: str
    options: tuple[str, ...]
    ticked: tuple[int, ...]
    single: bool


@dataclass(frozen=True)
class Table:
    """Names of columns (the first one's is `corner`), and for each row its name and cells."""

    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def draw_title(rng: np.random.Generator, split: Split) -> str:
    """What a form is for."""
    return f"{draw_from(rng, split, _SUBJECTS)} {_PAPERS[rng.integers(len(_PAPERS))]}"


def draw_label(rng: np.random.Generator, split: Split) -> str:
    """The label of any field."""
    return draw_from(rng, split, _LABELS[_kind(rng)])


def draw_fields(rng: np.random.Generator, split: Split, count: int, letters: int, beside: bool) -> tuple[Field, ...]:
    """Fields with different labels.

    Args:
        rng: where chance comes from.
        split: to which labels and values belong.
        count: how many.
        letters: in a line.
        beside: a value stands beside its label, not below it.

    Raises:
        PageOverflowError: too few fit.
    """
    kinds: dict[str, str] = {}

    def draw() -> str:
        kind = _kind(rng)
        label = draw_from(rng, split, _LABELS[kind])
        kinds[label] = kind
        return label

    return tuple(
        Field(label, _fitting(rng, split, kinds[label], letters - (len(label) + 2 if beside else 0)))
        for label in draw_distinct(count, draw)
    )


def _kind(rng: np.random.Generator) -> str:
    return str(rng.choice(list(_LABELS)))


def _fitting(rng: np.random.Generator, split: Split, kind: str, letters: int) -> str:
    for _ in range(_TRIES):
        value = _VALUES[kind](rng, split)
        if len(value) <= letters:
            return value
    raise PageOverflowError


def draw_choice(rng: np.random.Generator, split: Split, count: int, single: bool, taken: tuple[str, ...]) -> Choice:
    """A group of that many boxes whose texts are not taken."""
    options = tuple(draw_distinct(count, lambda: draw_from(rng, split, OPTIONS), taken))
    ticked = (int(rng.integers(count)),) if single else tuple(np.flatnonzero(rng.random(count) < 0.5).tolist())
    return Choice(draw_from(rng, split, _GROUPS), options, ticked, single)


def draw_table(rng: np.random.Generator, split: Split, rows: int, letters: int) -> Table:
    """A table of at most that many rows below its head.

    Raises:
        PageOverflowError: its names do not fit.
    """
    columns = tuple(
        draw_distinct(int(rng.integers(1, _MOST_TABLE_COLUMNS + 1)), lambda: draw_from(rng, split, _COLUMNS))
    )
    left = letters - sum(max(len(column), 5) + 2 for column in columns) - 2
    count = int(rng.integers(2, min(rows, _MOST_TABLE_ROWS) + 1))
    names = draw_distinct(count, lambda: draw_goods(rng, split, left))
    if max(map(len, names)) > left:
        raise PageOverflowError
    cells = [tuple(str(draw_whole(rng, split, 1, 1000)) for _ in columns) for _ in names]
    return Table("Item", columns, tuple((name, *row) for name, row in zip(names, cells, strict=True)))
