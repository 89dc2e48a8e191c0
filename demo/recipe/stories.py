"""A seeded grammar of short stories: the only source of text for the demo model.

In:   a seed, and either a number of stories or a size in bytes.
Out:  stories, one string each, without line breaks; as a program, UTF-8 text on standard output
      with one blank line between stories.
Time: about a second for 14 MB.

    python3 stories.py --seed 7 --bytes 2000

Every story has an opening, one or two of ten plots, and a closing. What is chosen early (a name and
its pronouns, a colour, a number, a hiding place, an order, the weather) is needed again later, so
most of the text can be predicted from the story so far, but not from the last word alone. Small
tables of facts (which animal makes which sound, which trade mends what) are the same in every
story.
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import dataclass

GIRLS = "Anna Bella Cora Dina Elsa Greta Hanna Ida Kira Lena Mia Nora Rosa Tilda".split()
BOYS = "Adam Ben Carl David Emil Finn Hugo Ivan Jonas Leo Max Oskar Paul Tom".split()
PET_NAMES = "Bibi Dot Fluff Gogo Momo Pip Socks Taffy".split()
COLOURS = "red blue green yellow white black brown grey".split()
THINGS = "ball book cup drum hat kite lamp ring scarf spoon top whistle".split()
FRUIT = "apples cherries figs nuts pears plums".split()
GOODS = "bread butter cheese eggs flour honey milk rice salt soap".split()
WORDS = "acorn candle feather marble ribbon thunder".split()
NUMBERS = "no one two three four five six seven eight nine ten eleven twelve".split()

# Where an object can be put.
SPOTS = [
    "under the bed", "behind the door", "in the old box", "on the high shelf",
    "in the basket", "under the stairs", "behind the clock", "in the deep drawer",
]

# Place -> what people do there, what they see there.
PLACES = {
    "pond": ("threw small stones into the water", "two ducks"),
    "forest": ("climbed over the fallen trees", "a tall oak"),
    "hill": ("rolled down through the long grass", "the whole valley"),
    "mill": ("watched the great wheel turn", "sacks of flour"),
    "garden": ("pulled weeds between the beans", "rows of beans"),
    "harbour": ("counted the sails", "many ships"),
    "bridge": ("dropped sticks into the river", "the fast river"),
    "farm": ("fed the hens", "a cart full of hay"),
    "school": ("drew pictures on the wall", "an empty playground"),
    "station": ("waved at the trains", "a long train"),
}

# Animal -> its sound, what it likes to eat, where it likes to sleep.
ANIMALS = {
    "cat": ("mewed", "fish", "on a warm roof"),
    "dog": ("barked", "a bone", "by the fire"),
    "goat": ("bleated", "fresh leaves", "on a heap of straw"),
    "duck": ("quacked", "wet bread", "among the reeds"),
    "pony": ("neighed", "a carrot", "in the stable"),
    "owl": ("hooted", "a beetle", "in a hollow tree"),
}

# Trade -> what it mends, how that broke, the tool that it needs.
TRADES = {
    "cobbler": ("boot", "lost its heel", "a small hammer"),
    "tailor": ("coat", "had a long tear", "a needle and thread"),
    "carpenter": ("chair", "had a loose leg", "a pot of glue"),
    "smith": ("kettle", "had a hole", "a hot iron"),
    "clockmaker": ("watch", "had stopped", "a tiny key"),
    "potter": ("jug", "had a crack", "a lump of clay"),
}

# Weather -> the opening remark, what the hero takes along (article, noun), the closing remark.
WEATHER = {
    "rain": ("It was raining hard", "an", "umbrella", "The rain had stopped at last"),
    "snow": ("Snow lay on the roofs", "a pair of", "thick gloves", "More snow began to fall"),
    "sun": ("The sun was very hot", "a", "straw hat", "The evening air was cool"),
    "wind": ("A strong wind was blowing", "a", "warm shawl", "The wind had gone to sleep"),
    "fog": ("Fog hid the houses", "a", "lantern", "The fog was gone and the stars came out"),
    "dark": ("It was still dark", "a", "candle", "The moon was up by now"),
}

TIMES = ["One morning", "One Sunday", "Last summer", "Long ago", "One afternoon", "Early one day"]


@dataclass(frozen=True)
class Person:
    """A name with the pronouns that agree with it."""

    name: str
    he: str
    him: str
    his: str
    kind: str

    @property
    def He(self) -> str:
        return self.he.capitalize()

    @property
    def His(self) -> str:
        return self.his.capitalize()


class World:
    """The source of one story's choices: one random stream; no name is used twice."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self._girls = rng.sample(GIRLS, 4)
        self._boys = rng.sample(BOYS, 4)
        self.hero = self.person()
        self.friend = self.person()
        self.weather = self.pick(list(WEATHER)) if self.number(0, 1) else ""
        self.lead, self.leads = self.hero.He, self.hero.His

    def pick(self, options):
        return options[self.rng.randrange(len(options))]

    def some(self, options, count):
        """`count` distinct members of `options`, in random order."""
        return self.rng.sample(list(options), count)

    def number(self, low, high):
        return self.rng.randrange(low, high + 1)

    def person(self) -> Person:
        if self.rng.randrange(2):
            return Person(self._girls.pop(), "she", "her", "her", "girl")
        return Person(self._boys.pop(), "he", "him", "his", "boy")


def amount(number: int, fruit: str) -> str:
    """A number in words with a fruit: `three figs`, `one fig`, `no figs`."""
    singular = "cherry" if fruit == "cherries" else fruit[:-1]
    return f"{NUMBERS[number]} {singular if number == 1 else fruit}"


def opening(w: World) -> list[str]:
    """Who, when, and (in half of the stories) the weather and what the hero takes along for it."""
    p, q = w.hero, w.friend
    lines = [w.pick([
        f"{w.pick(TIMES)} a {p.kind} named {p.name} left the house.",
        f"{w.pick(TIMES)} there was a {p.kind} called {p.name}.",
        f"{p.name} was a {p.kind} who lived near the {w.pick(list(PLACES))}.",
        f"This is a story about a {p.kind} named {p.name} and a {q.kind} named {q.name}.",
    ])]
    if w.weather:
        remark, article, noun, _ = WEATHER[w.weather]
        lines.append(w.pick([
            f"{remark}, so {p.he} took {article} {noun} along.",
            f"{remark}. {p.name} had brought {article} {noun}.",
        ]))
    return lines


def aside(w: World) -> list[str]:
    """A detail that the plot does not need; absent from half of the stories."""
    p, place, colour, thing = w.hero, w.pick(list(PLACES)), w.pick(COLOURS), w.pick(THINGS)
    animal = w.pick(list(ANIMALS))
    return w.pick([[], [], [], [], [
        f"On the way {p.he} passed the {place} and saw {PLACES[place][1]}.",
    ], [
        f"{w.lead} was {NUMBERS[w.number(5, 12)]} years old and liked {w.pick(FRUIT)}.",
    ], [
        f"{'An' if animal == 'owl' else 'A'} {animal} {ANIMALS[animal][0]} somewhere, "
        f"and {p.name} laughed.",
    ], [
        f"{w.lead} sang a song about a {colour} {thing}. "
        f"The song of the {colour} {thing} was long.",
    ]])


def closing(w: World) -> list[str]:
    """The weather of the opening changes, its object returns, and the hero goes home."""
    p, q = w.hero, w.friend
    lines = []
    if w.weather:
        _, _, noun, remark = WEATHER[w.weather]
        lines.append(w.pick([
            f"{remark}, and {p.name} carried the {noun} home.",
            f"{remark}, but {p.name} had lost the {noun}.",
        ]))
    lines.append(w.pick([
        f"That night {p.name} slept well, and so did {q.name}.",
        f"{p.name} thanked {q.name} and went to bed.",
        f"{q.name} was glad, and {p.name} was glad too.",
        f"{p.name} told {p.his} mother all about {q.name}.",
        f"From that day on {p.name} and {q.name} were friends.",
        f'"Good night, {p.name}," said {q.name}. "Good night, {q.name}," said {p.name}.',
    ]))
    return lines


def hiding(w: World) -> list[str]:
    """A coloured object is hidden, something else happens, and the object is searched for."""
    p, q = w.hero, w.friend
    thing, colour, spot, place = (w.pick(THINGS), w.pick(COLOURS), w.pick(SPOTS),
                                  w.pick(list(PLACES)))
    lines = [
        w.pick([f"{w.lead} had a {colour} {thing}.",
                f"{w.leads} aunt gave {p.him} a {colour} {thing}."]),
        w.pick([f"{p.name} hid the {thing} {spot} and went to the {place}.",
                f"{p.name} put the {thing} {spot}. Then {p.he} walked to the {place}."]),
        f"At the {place} {p.he} {PLACES[place][0]}.",
        w.pick([f"There {p.he} met {q.name}.", f"{q.name} was there too.",
                f"After a while {q.name} came along."]),
        f'"Where is your {colour} {thing}?" asked {q.name}.',
        f'"It is {spot}," said {p.name}.',
        f"They left the {place} and looked {spot}.",
    ]
    lines.append(w.pick([
        f"There was the {thing}, as {colour} as before.",
        f"But the {thing} was not there. Somebody had taken the {colour} {thing}.",
        f"{q.name} pulled out the {colour} {thing} and gave it to {p.name}.",
    ]))
    return lines


def giving(w: World) -> list[str]:
    """Giving and taking: every result is stated and correct."""
    p, q = w.hero, w.friend
    fruit = w.pick(FRUIT)
    have, theirs = w.number(3, 9), 0
    lines = [w.pick([f"{w.lead} had {amount(have, fruit)} in a bag.",
                     f"{w.lead} picked {amount(have, fruit)} from a tree."]),
             f"{q.name} had no {fruit} at all."]
    for _ in range(w.number(1, 2)):
        if have == 0:
            break
        gift = w.number(1, min(have, 4))
        have, theirs = have - gift, theirs + gift
        lines.append(w.pick([f"{p.name} gave {q.him} {amount(gift, fruit)}.",
                             f"{q.name} asked for {amount(gift, fruit)} and got "
                             f"{'it' if gift == 1 else 'them'}."]))
        lines.append(f"Now {p.name} had {amount(have, fruit)} and {q.name} had "
                     f"{amount(theirs, fruit)}.")
    if w.number(0, 1):
        found = w.number(1, 3)
        have += found
        lines.append(f"Then {p.name} found {amount(found, fruit)} more, and so {p.he} had "
                     f"{amount(have, fruit)}.")
    lines.append(f'"I have {amount(theirs, fruit)}," said {q.name}. '
                 f'"And I have {amount(have, fruit)}," said {p.name}.')
    return lines


def swapping(w: World) -> list[str]:
    """Two owners swap two coloured objects."""
    p, q = w.hero, w.friend
    mine, yours = w.some(THINGS, 2)
    my_colour, your_colour = w.some(COLOURS, 2)
    return [
        f"{w.lead} had a {my_colour} {mine}, and {q.name} had a {your_colour} {yours}.",
        w.pick([f'"I like your {yours}," said {p.name}.',
                f'"Your {yours} is so {your_colour}," said {p.name}.']),
        f'"And I like your {mine}," said {q.name}.',
        w.pick(["So they made a swap.", '"Let us swap!" they said.']),
        f"{p.name} got the {your_colour} {yours}, and {q.name} got the {my_colour} {mine}.",
        w.pick([f"{p.name} kept the {yours} {w.pick(SPOTS)}.",
                f"{q.name} showed the {mine} to {q.his} brother."]),
        f"Nobody ever asked for the {my_colour} {mine} or the {your_colour} {yours} again."
        if w.number(0, 1) else
        f"From then on the {mine} belonged to {q.name} and the {yours} belonged to {p.name}.",
    ]


def walking(w: World) -> list[str]:
    """A walk past three places, and back past them in reverse order."""
    p, q = w.hero, w.friend
    a, b, c = w.some(PLACES, 3)
    return [
        w.pick([f"{w.lead} went for a walk with {q.name}.",
                f"{w.lead} and {q.name} wanted to see the {c}."]),
        f"First they came to the {a}, then to the {b}, and last to the {c}.",
        f"At the {a} they saw {PLACES[a][1]}.",
        f"At the {b} they {PLACES[b][0]}.",
        f"At the {c} they saw {PLACES[c][1]} and turned round.",
        f"On the way back they passed the {b} and then the {a}.",
        w.pick([f'"I liked the {c} best," said {q.name}.',
                f'"Next time we will stay longer at the {w.pick([a, b])}," said {p.name}.']),
    ]


def lost_pet(w: World) -> list[str]:
    """An animal runs away and is recognised by its sound, its colour and what it eats."""
    p, q = w.hero, w.friend
    animal, pet, colour, place = (w.pick(list(ANIMALS)), w.pick(PET_NAMES), w.pick(COLOURS),
                                  w.pick(list(PLACES)))
    sound, food, bed = ANIMALS[animal]
    return [
        f"{w.lead} had a {colour} {animal}. Its name was {pet}.",
        w.pick([f"But {pet} ran away to the {place}.",
                f"But one day {pet} was gone, for the gate was open."]),
        f'{p.name} asked {q.name}: "Have you seen a {colour} {animal}?"',
        f'"I heard something that {sound} at the {place}," said {q.name}.',
        f"So {p.name} and {q.name} went to the {place} and called: \"{pet}! {pet}!\"",
        f"The {animal} {sound} and came to {p.him}.",
        f"{p.name} gave {pet} {food}, and then the {colour} {animal} slept {bed}.",
    ]


def shopping(w: World) -> list[str]:
    """A list of three items; two are bought, so the third was forgotten."""
    p, q = w.hero, w.friend
    goods = w.some(GOODS, 3)
    bought = w.some(goods, 2)
    missing = next(item for item in goods if item not in bought)
    return [
        f'{w.leads} mother said: "Please buy {goods[0]}, {goods[1]} and {goods[2]}."',
        f"{p.name} met {q.name} in the shop and talked for a while.",
        f"Then {p.he} bought {bought[0]} and {bought[1]} and went home.",
        f'"Where is the {missing}?" asked {p.his} mother.',
        f'"I forgot the {missing}," said {p.name}.',
        w.pick([f"So {p.he} ran back, and {q.name} helped {p.him} to find the {missing}.",
                f"But {q.name} came to the door and brought the {missing}."]),
        f"Now they had {goods[0]}, {goods[1]} and {goods[2]}.",
    ]


def mending(w: World) -> list[str]:
    """A broken object goes to the one trade that mends it."""
    p, q = w.hero, w.friend
    trade, colour = w.pick(list(TRADES)), w.pick(COLOURS)
    thing, damage, tool = TRADES[trade]
    price = w.number(2, 9)
    return [
        f"{w.leads} father owned a {colour} {thing}, but it {damage}.",
        f"{p.name} took the {thing} to {q.name}, the {trade}.",
        f'"My father\'s {thing} {damage}," said {p.name}.',
        f"{q.name} took {tool} and worked for {NUMBERS[w.number(2, 5)]} hours.",
        f'"That makes {NUMBERS[price]} coins," said {q.name}.',
        f"{p.name} paid the {trade} {NUMBERS[price]} coins and carried the {colour} {thing} home.",
    ]


def password(w: World) -> list[str]:
    """A word is given once and must be repeated at the door."""
    p, q = w.hero, w.friend
    word, place = w.pick(WORDS), w.pick(list(PLACES))
    wrong = w.pick([other for other in WORDS if other != word])
    lines = [
        f"{q.name} had a secret hut near the {place}.",
        f'"The word is {word}," {q.he} told {p.name}. "Do not forget it!"',
        f"{p.name} went to the {place} and {PLACES[place][0]}.",
        f"Then {p.he} knocked at the hut.",
        f'"What is the word?" asked {q.name}.',
    ]
    if w.number(0, 1):
        lines.append(f'"Is it {wrong}?" said {p.name}. "No, it is not {wrong}," said {q.name}.')
    lines.append(f'"It is {word}," said {p.name}, and {q.name} opened the door.')
    return lines


def race(w: World) -> list[str]:
    """Three runners; their order is stated once and asked for later."""
    p, q, r = w.hero, w.friend, w.person()
    place = w.pick(list(PLACES))
    order = w.some([p, q, r], 3)
    prize, colour = w.pick(THINGS), w.pick(COLOURS)
    return [
        f"{w.lead} ran a race to the {place} with {q.name} and {r.name}.",
        f"{order[0].name} was first, {order[1].name} was second and {order[2].name} was last.",
        f"The prize was a {colour} {prize}.",
        f'"Who was first?" asked the judge. "{order[0].name}," they said.',
        f'"And who was last?" "{order[2].name}," they said.',
        f"So {order[0].name} got the {colour} {prize}, and {order[0].he} shook hands with "
        f"{order[1].name} and {order[2].name}.",
    ]


def letter(w: World) -> list[str]:
    """A message with a number, a fruit and a place is delivered and followed."""
    p, q = w.hero, w.friend
    fruit, count, place, colour = (w.pick(FRUIT), w.number(2, 12), w.pick(list(PLACES)),
                                   w.pick(COLOURS))
    return [
        f"A {colour} bird brought {p.him} a letter from {q.name}.",
        f'The letter said: "Please bring {amount(count, fruit)} to the {place}."',
        f"{p.name} read it {w.pick(['once', 'twice'])} and looked for {fruit}.",
        f"When {p.he} had {amount(count, fruit)}, {p.he} walked to the {place}.",
        f"{q.name} was waiting there. {q.He} counted the {fruit}: there were {NUMBERS[count]}.",
        f'"The {colour} bird is clever," said {q.name}, "and you are kind."',
    ]


PLOTS = [hiding, giving, swapping, walking, lost_pet, shopping, mending, password, race, letter]


def story(rng: random.Random) -> str:
    """One story as a single line of text."""
    w = World(rng)
    first, second = w.some(PLOTS, 2)
    lines = opening(w) + aside(w) + first(w)
    if w.number(1, 4) == 1:
        lines.append(w.pick(["The next day they met again.", "A week went by."]))
        w.lead, w.leads = w.hero.name, f"{w.hero.name}'s"
        lines += second(w)
    return " ".join(lines + closing(w))


def stories(seed: int, count: int = 0, size: int = 0, without: set[str] = frozenset()) -> list[str]:
    """`count` stories, or as many as reach `size` bytes (with separators), none in `without`."""
    rng = random.Random(seed)
    out, total = [], 0
    while len(out) < count or total < size:
        text = story(rng)
        if text not in without:
            out.append(text)
            total += len(text.encode()) + 2
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--bytes", type=int, default=2000)
    args = parser.parse_args()
    sys.stdout.write("\n\n".join(stories(args.seed, size=args.bytes)) + "\n")


if __name__ == "__main__":
    main()
