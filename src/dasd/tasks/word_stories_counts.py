"""Stories of travelling, making, reading, ageing and building: in each something is counted on its way."""

from __future__ import annotations

from collections.abc import Iterator

from dasd.tasks.word_stories import Draw, Stage


def travel(d: Draw) -> Iterator[Stage]:
    vehicle = d.of("car", "bus", "truck", "train")
    v, h, w, k = 10 * d.few(4, 9), d.few(2, 5), 10 * d.few(3, 8), d.few(2, 4)
    first, second = v * h, w * k
    total, speed, last = first + second, 10 * d.few(3, 6), d.few(2, 5)
    yield Stage(
        d.of(f"A {vehicle} travels at {v} kilometers per hour for {h} hours.",
             f"{d.name} drives a {vehicle} for {h} hours at a steady {v} kilometers per hour."),
        "How many kilometers is that?",
        (f"The first part is: {v} * {h} = {first}",),
    )  # fmt: skip
    yield Stage(
        f"After a break the trip goes on for {k} hours at {w} kilometers per hour.",
        "How many kilometers are travelled in all?",
        (f"The second part is: {w} * {k} = {second}", f"Both parts: {first} + {second} = {total}"),
    )
    yield Stage(
        f"The whole route is {total + speed * last} kilometers long.",
        "How many kilometers are still to go?",
        (f"Still to go: {total + speed * last} - {total} = {speed * last}",),
    )
    yield Stage(
        f"On the rest of the route the {vehicle} is slower and goes at {speed} kilometers per hour.",
        "How many hours does the rest of the route take?",
        (f"Time needed: {speed * last} / {speed} = {last}",),
    )


def factory(d: Draw) -> Iterator[Stage]:
    part = d.of("screws", "buttons", "bottles", "candles")
    rate, minutes, size = d.many(5, 20), d.few(4, 12), d.few(4, 8)
    made = rate * minutes
    more = d.many(4, 40)
    bad = d.rng.randint(1, size) + (made + more) % size
    boxes = (made + more - bad) // size
    bad = made + more - boxes * size
    yield Stage(
        d.of(f"A machine makes {rate} {part} per minute and runs for {minutes} minutes.",
             f"In a small factory one machine runs for {minutes} minutes and turns out {rate} {part} every minute."),
        f"How many {part} does it make?",
        (f"Made by the machine: {rate} * {minutes} = {made}",),
    )  # fmt: skip
    yield Stage(
        f"Another {more} {part} were left from yesterday.",
        f"How many {part} are there altogether?",
        (f"With those from yesterday: {made} + {more} = {made + more}",),
    )
    yield Stage(
        f"An inspector throws {bad} of all these {part} away.",
        f"How many good {part} remain?",
        (f"Good ones: {made + more} - {bad} = {boxes * size}",),
    )
    yield Stage(
        f"The good ones are packed into boxes of {size}.",
        "How many boxes are packed?",
        (f"Boxes: {boxes * size} / {size} = {boxes}",),
    )
    price = d.few(3, 9)
    yield Stage(
        f"A shop buys all boxes and pays {price} dollars for each.",
        "How many dollars does the shop pay?",
        (f"Paid: {boxes} * {price} = {boxes * price}",),
    )


def ages(d: Draw) -> Iterator[Stage]:
    child, times = d.few(4, 12), d.few(3, 5)
    parent = child * times
    gap, years = d.few(2, min(9, parent - child - 1)), d.few(2, 9)
    uncle = parent - gap
    total = child + parent + uncle
    yield Stage(
        d.of(f"{d.name} is {child} years old, and {d.their} mother is {times} times as old.",
             f"{d.name} has just turned {child}. {d.They} has a mother who is {times} times as old as {d.they} is."),
        f"How old is {d.name}'s mother?",
        (f"The mother's age: {child} * {times} = {parent}",),
    )  # fmt: skip
    yield Stage(
        f"{d.their.capitalize()} uncle is {gap} years younger than {d.their} mother.",
        f"How old is {d.name}'s uncle?",
        (f"The uncle's age: {parent} - {gap} = {uncle}",),
    )
    yield Stage(
        d.of(f"{d.name}, {d.their} mother and {d.their} uncle add up their ages.",
             "Somebody writes down the ages of all three and adds them."),
        "What is the sum of the three ages?",
        (f"All three together: {child} + {parent} + {uncle} = {total}",),
    )  # fmt: skip
    yield Stage(
        f"They want to know the same for {years} years from now.",
        f"What will the sum of the three ages be in {years} years?",
        (
            f"All of them grow older, together by: 3 * {years} = {3 * years}",
            f"The sum then: {total} + {3 * years} = {total + 3 * years}",
        ),
    )


def reading(d: Draw) -> Iterator[Stage]:
    pages, days, rest_days = d.many(8, 25), d.few(3, 9), d.few(2, 6)
    read = pages * days
    per_day = pages + d.few(2, 12)
    rest = per_day * rest_days
    yield Stage(
        d.of(f"{d.name} reads {pages} pages of a novel on each of {days} days.",
             f"For {days} days {d.name} reads {pages} pages of a book every evening."),
        f"How many pages has {d.name} read?",
        (f"Read so far: {pages} * {days} = {read}",),
    )  # fmt: skip
    yield Stage(
        f"The book has {read + rest} pages.",
        "How many pages are left?",
        (f"Pages left: {read + rest} - {read} = {rest}",),
    )
    yield Stage(
        f"{d.They} wants to finish it in {rest_days} more days and to read the same number of pages on each of them.",
        f"How many pages a day does {d.name} have to read from now on?",
        (f"Pages a day: {rest} / {rest_days} = {per_day}",),
    )
    yield Stage(
        d.of(f"That is more than {d.they} read a day before.", f"So {d.they} has to read faster than before."),
        "How many more pages a day is that than before?",
        (f"More than before: {per_day} - {pages} = {per_day - pages}",),
    )


def trip(d: Draw) -> Iterator[Stage]:
    classes, pupils, buses = d.few(3, 6), d.many(15, 28), d.few(2, 5)
    kids = classes * pupils
    adults = d.few(4, 9)
    adults += -(kids + adults) % buses
    people = kids + adults
    yield Stage(
        d.of(f"{classes} classes of {pupils} pupils each go on a trip.",
             f"A school takes {classes} classes to the zoo. There are {pupils} pupils in each class."),
        "How many pupils go on the trip?",
        (f"Pupils: {classes} * {pupils} = {kids}",),
    )  # fmt: skip
    yield Stage(
        f"{adults} adults go with them.",
        "How many people go on the trip?",
        (f"With the adults: {kids} + {adults} = {people}",),
    )
    yield Stage(
        f"They are spread evenly over {buses} buses.",
        "How many people are in each bus?",
        (f"In each bus: {people} / {buses} = {people // buses}",),
    )
    seats = people // buses + d.few(2, 9)
    yield Stage(
        f"Every bus has {seats} seats.",
        "How many seats stay empty in all the buses together?",
        (
            f"Empty seats in one bus: {seats} - {people // buses} = {seats - people // buses}",
            f"Empty seats in all: {seats - people // buses} * {buses} = {(seats - people // buses) * buses}",
        ),
    )


def tank(d: Draw) -> Iterator[Stage]:
    fill, leak, minutes = d.many(8, 20), d.few(2, 6), d.few(4, 12)
    inflow, lost = fill * minutes, leak * minutes
    have = inflow - lost
    more, rate = d.few(3, 9), d.few(3, 9)
    yield Stage(
        d.of(f"A pump fills {fill} liters of water per minute into an empty tank for {minutes} minutes.",
             f"Water runs into an empty tank for {minutes} minutes, {fill} liters every minute."),
        "How many liters run in?",
        (f"Running in: {fill} * {minutes} = {inflow}",),
    )  # fmt: skip
    yield Stage(
        f"All this time {leak} liters per minute are lost through a leak.",
        "How many liters are in the tank at the end?",
        (f"Lost: {leak} * {minutes} = {lost}", f"In the tank: {inflow} - {lost} = {have}"),
    )
    yield Stage(
        f"The tank holds {have + more * rate} liters when it is full.",
        "How many liters are missing to fill it?",
        (f"Missing: {have + more * rate} - {have} = {more * rate}",),
    )
    yield Stage(
        f"The leak is closed, and a hose brings in {rate} liters per minute.",
        "How many minutes does it take to fill the tank?",
        (f"Minutes: {more * rate} / {rate} = {more}",),
    )


def collection(d: Draw) -> Iterator[Stage]:
    thing = d.of("marbles", "stamps", "shells", "coins", "cards")
    mine, times, given = d.many(6, 20), d.few(2, 4), d.few(2, 5)
    theirs = mine * times
    extra = d.many(3, 15)
    third = theirs + extra
    total = mine + theirs + third
    yield Stage(
        d.of(f"{d.name} has {mine} {thing}, and {d.friend} has {times} times as many.",
             f"{d.friend} owns {times} times as many {thing} as {d.name}, who has {mine}."),
        f"How many {thing} does {d.friend} have?",
        (f"{d.friend} has: {mine} * {times} = {theirs}",),
    )  # fmt: skip
    yield Stage(
        f"{d.other} has {extra} {thing} more than {d.friend}.",
        f"How many {thing} does {d.other} have?",
        (f"{d.other} has: {theirs} + {extra} = {third}",),
    )
    yield Stage(
        f"The three of them put all their {thing} together.",
        f"How many {thing} are there in all?",
        (f"In all: {mine} + {theirs} + {third} = {total}",),
    )
    lost = total % 3 + 3 * given
    yield Stage(
        f"They give {lost} {thing} to a younger boy and share the others equally among the three of them.",
        f"How many {thing} does each of the three get?",
        (f"To be shared: {total} - {lost} = {total - lost}", f"Each gets: {total - lost} / 3 = {(total - lost) // 3}"),
    )


def fence(d: Draw) -> Iterator[Stage]:
    length, width, price = d.many(8, 20), d.few(3, 8), d.few(2, 9)
    area = length * width
    tiles = d.few(2, 4)
    spare, pack = d.few(3, 9), d.few(2, 6)
    spare += -(area * tiles + spare) % pack
    yield Stage(
        d.of(f"A terrace is {length} meters long and {width} meters wide.",
             f"{d.name} builds a rectangular terrace of {length} meters by {width} meters."),
        "How many square meters is it?",
        (f"The area is: {length} * {width} = {area}",),
    )  # fmt: skip
    yield Stage(
        f"Every square meter takes {tiles} tiles.",
        "How many tiles does the terrace take?",
        (f"Tiles: {area} * {tiles} = {area * tiles}",),
    )
    yield Stage(
        f"{spare} more tiles are bought because some will break.",
        "How many tiles are bought?",
        (f"Tiles bought: {area * tiles} + {spare} = {area * tiles + spare}",),
    )
    packs = (area * tiles + spare) // pack
    yield Stage(
        f"Tiles come in packs of {pack}.",
        "How many packs are bought?",
        (f"Packs: {area * tiles + spare} / {pack} = {packs}",),
    )
    yield Stage(
        f"A pack costs {price} dollars.",
        "How many dollars do the tiles cost?",
        (f"Cost: {packs} * {price} = {packs * price}",),
    )


STORIES = (travel, factory, ages, reading, trip, tank, collection, fence)
