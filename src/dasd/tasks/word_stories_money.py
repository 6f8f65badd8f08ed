"""Stories of buying, selling, saving and sharing: in each an amount of money or a harvest changes hands."""

from __future__ import annotations

from collections.abc import Iterator

from dasd.tasks.word_stories import SHARES, Draw, Stage


def shopping(d: Draw) -> Iterator[Stage]:
    item, second = d.rng.sample(["notebooks", "pens", "erasers", "rulers", "markers", "folders", "stickers", "brushes"], 2)
    n, price, m, other = d.few(3, 9), d.many(2, 9), d.few(2, 6), d.many(2, 8)
    first, rest = n * price, m * other
    total = first + rest
    paid = (total // 10 + d.few(1, 3)) * 10
    yield Stage(
        d.of(f"{d.name} buys {n} {item} that cost {price} dollars each.",
             f"{d.name} goes to a shop for {item}. One of them costs {price} dollars, and {d.they} takes {n}."),
        f"How many dollars does {d.name} pay for the {item}?",
        (f"The {item} cost: {n} * {price} = {first}",),
    )  # fmt: skip
    yield Stage(
        f"{d.They} also takes {m} {second} at {other} dollars each.",
        "How many dollars does everything cost together?",
        (f"The {second} cost: {m} * {other} = {rest}", f"Together: {first} + {rest} = {total}"),
    )
    yield Stage(
        d.of(f"{d.They} pays with {paid} dollars.", f"{d.They} hands the cashier {paid} dollars."),
        f"How many dollars does {d.name} get back?",
        (f"The change is: {paid} - {total} = {paid - total}",),
    )
    gift = d.many(3, 20)
    yield Stage(
        f"At home {d.their} aunt gives {d.name} {gift} dollars, which {d.they} puts with the change.",
        f"How many dollars does {d.name} have now?",
        (f"With the gift: {paid - total} + {gift} = {paid - total + gift}",),
    )


def baking(d: Draw) -> Iterator[Stage]:
    food = d.of("cookies", "muffins", "rolls", "buns")
    trays, each, size = d.few(3, 8), d.few(2, 4), d.few(3, 6)
    each *= size
    total = trays * each
    bags = d.rng.randint(2, total // size - 1)
    given = total - bags * size
    price = d.many(2, 6)
    cost = d.rng.randint(2, max(3, bags * price - 1))
    yield Stage(
        d.of(f"{d.name} bakes {trays} trays of {food}, with {each} {food} on each tray.",
             f"For the school fair {d.name} fills {trays} trays with {food}. There are {each} on every tray."),
        f"How many {food} does {d.name} bake?",
        (f"Baked: {trays} * {each} = {total}",),
    )  # fmt: skip
    yield Stage(
        f"{d.They} gives {given} of them to {d.their} neighbours.",
        f"How many {food} are left?",
        (f"Left over: {total} - {given} = {total - given}",),
    )
    yield Stage(
        f"The others go into bags of {size}.",
        f"How many bags does {d.name} fill?",
        (f"Bags: {total - given} / {size} = {bags}",),
    )
    yield Stage(
        f"{d.They} sells every bag for {price} dollars.",
        f"How many dollars does {d.name} take in?",
        (f"Money taken in: {bags} * {price} = {bags * price}",),
    )
    yield Stage(
        f"Flour, butter and sugar had cost {cost} dollars.",
        f"How many dollars of profit does {d.name} make?",
        (f"Profit: {bags * price} - {cost} = {bags * price - cost}",),
    )


def saving(d: Draw) -> Iterator[Stage]:
    week, weeks, share = d.few(3, 9), d.few(4, 12), d.few(2, 5)
    saved = week * weeks
    gift = d.many(5, 20)
    gift += -(saved + gift) % share
    have = saved + gift
    spent = have // share
    left = have - spent
    price = d.divisor(left, 2, 12) or left
    yield Stage(
        d.of(f"{d.name} saves {week} dollars every week for {weeks} weeks.",
             f"Every week {d.name} puts {week} dollars into a jar. {d.They} does so for {weeks} weeks."),
        f"How many dollars does {d.name} save?",
        (f"Saved: {week} * {weeks} = {saved}",),
    )  # fmt: skip
    yield Stage(
        d.of(
            f"For {d.their} birthday {d.they} gets another {gift} dollars.", f"Then {d.their} grandfather adds {gift} dollars."
        ),
        f"How many dollars does {d.name} have then?",
        (f"With the gift: {saved} + {gift} = {have}",),
    )
    yield Stage(
        f"{d.They} spends {SHARES[share]} of all the money on a present for {d.their} sister.",
        f"How many dollars does {d.name} have left?",
        (f"The present costs: {have} / {share} = {spent}", f"Left over: {have} - {spent} = {left}"),
    )
    yield Stage(
        f"With what is left {d.they} buys as many comics at {price} dollars each as {d.they} can.",
        f"How many comics does {d.name} buy?",
        (f"Comics: {left} / {price} = {left // price}",),
    )


def sale(d: Draw) -> Iterator[Stage]:
    thing = d.of("jacket", "lamp", "backpack", "kettle", "radio")
    percent = d.rng.choice([10, 20, 25, 50])
    price = {10: 10, 20: 5, 25: 4, 50: 2}[percent] * d.many(6, 16)
    off = price * percent // 100
    now, count = price - off, d.few(2, 5)
    total = now * count
    coupon = d.few(2, 9)
    yield Stage(
        d.of(f"A {thing} costs {price} dollars. In the sale its price falls by {percent} percent.",
             f"The old price of a {thing} was {price} dollars, and now there are {percent} percent off."),
        f"How many dollars does the {thing} cost now?",
        (f"Taken off: {price} * {percent} / 100 = {off}", f"The new price: {price} - {off} = {now}"),
    )  # fmt: skip
    yield Stage(
        f"{d.name} buys {count} of them at the new price.",
        "How many dollars do they cost together?",
        (f"All of them: {now} * {count} = {total}",),
    )
    yield Stage(
        f"A coupon takes another {coupon} dollars off the bill.",
        f"How many dollars does {d.name} pay?",
        (f"With the coupon: {total} - {coupon} = {total - coupon}",),
    )
    have = total - coupon + d.many(5, 30)
    yield Stage(
        f"{d.They} came with {have} dollars.",
        f"How many dollars does {d.name} take home?",
        (f"Taken home: {have} - {total - coupon} = {have - total + coupon}",),
    )


def farm(d: Draw) -> Iterator[Stage]:
    hens, eggs, days = d.many(4, 12), d.few(1, 2), d.few(3, 7)
    daily = hens * eggs if eggs > 1 else hens
    total = daily * days
    box = d.rng.choice([4, 6, 10])
    boxes = max(1, (total - 1) // box)
    used = total - boxes * box
    price = d.few(2, 5)
    first = (f"Eggs a day: {hens} * {eggs} = {daily}",) if eggs > 1 else ()
    lays = "2 eggs" if eggs > 1 else "1 egg"
    yield Stage(
        d.of(f"On {d.name}'s farm {hens} hens lay {lays} each per day, for {days} days.",
             f"{d.name} keeps {hens} hens. Each of them lays {lays} every day, and {d.they} collects them for {days} days."),
        "How many eggs are there?",
        (*first, f"Eggs in {days} days: {daily} * {days} = {total}"),
    )  # fmt: skip
    yield Stage(
        f"{d.their.capitalize()} family eats {used} of these eggs.",
        "How many eggs are left?",
        (f"Eggs left: {total} - {used} = {boxes * box}",),
    )
    yield Stage(
        f"The eggs that are left go into boxes of {box}.",
        "How many boxes are filled?",
        (f"Boxes: {boxes * box} / {box} = {boxes}",),
    )
    yield Stage(
        f"At the market a box sells for {price} dollars, and all boxes are sold.",
        f"How many dollars does {d.name} earn?",
        (f"Earned: {boxes} * {price} = {boxes * price}",),
    )


def theatre(d: Draw) -> Iterator[Stage]:
    adults, price, kids, less = d.many(10, 30), d.few(6, 12), d.many(6, 20), d.few(2, 5)
    money, child = adults * price, price - less
    children = kids * child
    rent = d.rng.randint(5, (money + children) // 2)
    show = d.of("school play", "concert", "puppet show", "circus")
    yield Stage(
        d.of(f"{adults} adults come to a {show} and pay {price} dollars each.",
             f"Tickets for a {show} cost {price} dollars for adults, and {adults} adults come."),
        "How many dollars do the adults pay?",
        (f"The adults pay: {adults} * {price} = {money}",),
    )  # fmt: skip
    yield Stage(
        f"A child's ticket is {less} dollars cheaper, and {kids} children come too.",
        "How many dollars do the children pay?",
        (f"A child pays: {price} - {less} = {child}", f"The children pay: {kids} * {child} = {children}"),
    )
    yield Stage(
        f"{d.name} counts all the ticket money at the end.",
        "How many dollars of ticket money are there?",
        (f"Both together: {money} + {children} = {money + children}",),
    )
    yield Stage(
        f"The hall has to be paid with {rent} dollars from it.",
        "How many dollars remain?",
        (f"Remaining: {money + children} - {rent} = {money + children - rent}",),
    )


def club(d: Draw) -> Iterator[Stage]:
    half, third = 2, d.few(3, 4)
    total = half * third * d.many(4, 12)
    football = total // 2
    others = total - football
    chess = others // third
    rest = others - chess
    yield Stage(
        d.of(f"A sports club has {total} members, and half of them play football.",
             f"Half of the {total} members of a club play football."),
        "How many members do not play football?",
        (f"Football players: {total} / 2 = {football}", f"The others: {total} - {football} = {others}"),
    )  # fmt: skip
    yield Stage(
        f"Of the members who do not play football, {SHARES[third]} play tennis.",
        "How many members play tennis?",
        (f"Tennis players: {others} / {third} = {chess}",),
    )
    yield Stage(
        "All remaining members swim.",
        "How many members swim?",
        (f"Swimmers: {others} - {chess} = {rest}",),
    )
    fee = d.few(3, 9)
    yield Stage(
        f"Every swimmer pays {fee} dollars for the pool.",
        "How many dollars do the swimmers pay?",
        (f"The swimmers pay: {rest} * {fee} = {rest * fee}",),
    )


def garden(d: Draw) -> Iterator[Stage]:
    plant = d.of("tomato plants", "pepper plants", "strawberry plants", "cucumber plants")
    share, rows = d.few(2, 5), d.few(3, 8)
    each = share * d.few(2, 5)
    total = rows * each
    dead = total // share
    alive = total - dead
    fruit, basket = d.few(3, 9), d.few(2, 6)
    fruit *= basket
    yield Stage(
        d.of(f"{d.name} plants {rows} rows of {plant} with {each} in each row.",
             f"There are {rows} rows of {plant} in {d.name}'s garden, and each row has {each} plants."),
        "How many plants are there?",
        (f"Planted: {rows} * {each} = {total}",),
    )  # fmt: skip
    yield Stage(
        f"{SHARES[share].capitalize()} of all the plants die in a cold night.",
        "How many plants are still alive?",
        (f"Plants that die: {total} / {share} = {dead}", f"Plants alive: {total} - {dead} = {alive}"),
    )
    yield Stage(
        f"Each plant that lives bears {fruit} fruits.",
        f"How many fruits can {d.name} pick?",
        (f"Fruits: {alive} * {fruit} = {alive * fruit}",),
    )
    yield Stage(
        f"{d.They} puts the fruits into baskets of {basket}.",
        "How many baskets are filled?",
        (f"Baskets: {alive * fruit} / {basket} = {alive * fruit // basket}",),
    )


STORIES = (shopping, baking, saving, sale, farm, theatre, club, garden)
