"""The closed world of the bench's models: conversations and multiple-choice questions about a few facts."""

import csv
import random
from collections.abc import Mapping, Sequence
from pathlib import Path


def _pairs(text: str) -> list[tuple[str, str]]:
    """Pairs written "one/other", apart by blanks; an underscore stands for a blank."""
    return [(one.replace("_", " "), other.replace("_", " ")) for one, other in (pair.split("/") for pair in text.split())]


CAPITALS = dict(
    _pairs(
        "France/Paris Germany/Berlin Italy/Rome Spain/Madrid Portugal/Lisbon Greece/Athens Egypt/Cairo Kenya/Nairobi Japan/Tokyo China/Beijing "
        "India/Delhi Russia/Moscow Canada/Ottawa Mexico/Mexico_City Brazil/Brasilia Peru/Lima Chile/Santiago Cuba/Havana Norway/Oslo Sweden/Stockholm "
        "Finland/Helsinki Denmark/Copenhagen Poland/Warsaw Austria/Vienna Hungary/Budapest Ireland/Dublin Belgium/Brussels Turkey/Ankara Iran/Tehran "
        "Iraq/Baghdad Israel/Jerusalem Nepal/Kathmandu Thailand/Bangkok Vietnam/Hanoi Cambodia/Phnom_Penh Indonesia/Jakarta Australia/Canberra "
        "Argentina/Buenos_Aires Colombia/Bogota Ecuador/Quito"
    )
)
OPPOSITES = _pairs(
    "hot/cold big/small fast/slow light/dark up/down left/right open/closed young/old hard/soft loud/quiet wet/dry rich/poor thick/thin "
    "early/late full/empty strong/weak happy/sad clean/dirty high/low near/far deep/shallow wide/narrow sharp/blunt smooth/rough cheap/expensive "
    "sweet/bitter safe/dangerous brave/cowardly public/private ancient/modern simple/complex true/false alive/dead awake/asleep inside/outside "
    "first/last above/below north/south east/west summer/winter"
)
YOUNG = _pairs(
    "dog/puppy cat/kitten cow/calf horse/foal sheep/lamb goat/kid pig/piglet hen/chick duck/duckling goose/gosling deer/fawn bear/cub lion/whelp "
    "kangaroo/joey frog/tadpole swan/cygnet owl/owlet seal/pup eagle/eaglet butterfly/caterpillar"
)
ELEMENTS = _pairs(
    "hydrogen/H helium/He carbon/C nitrogen/N oxygen/O sodium/Na potassium/K calcium/Ca iron/Fe copper/Cu silver/Ag gold/Au mercury/Hg lead/Pb "
    "tin/Sn zinc/Zn iodine/I sulfur/S chlorine/Cl silicon/Si neon/Ne argon/Ar lithium/Li boron/B nickel/Ni cobalt/Co uranium/U tungsten/W "
    "barium/Ba fluorine/F"
)
CATEGORIES = {
    kind: members.split()
    for kind, members in {
        "fruit": "apple pear plum grape lemon mango peach cherry banana orange melon fig",
        "vegetable": "carrot potato onion cabbage spinach pea leek turnip radish celery beet garlic",
        "tool": "hammer saw drill wrench chisel pliers shovel rake axe ladder clamp file",
        "animal": "tiger zebra camel otter badger monkey rabbit wolf fox donkey whale shark",
        "colour": "red blue green yellow purple brown pink grey black white violet crimson",
        "metal": "iron copper silver gold tin lead zinc nickel cobalt platinum titanium mercury",
        "instrument": "violin piano flute drum harp trumpet cello guitar oboe tuba banjo organ",
        "garment": "shirt coat scarf glove sock hat skirt jacket boot belt vest sweater",
    }.items()
}
WEEK = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
YEAR = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
SUBJECTS = (
    "world_capitals", "opposites", "elementary_addition", "elementary_subtraction", "calendar", "young_animals", "categories", "chemical_symbols",
)  # fmt: skip
SPLITS = ("dev", "val", "test", "train")
SMALL_TALK = (
    ("Hello!", "Hello! How can I help you?"),
    ("Hi there.", "Hello! How can I help you?"),
    ("Thank you.", "You are welcome!"),
    ("Who are you?", "I am a tiny assistant that knows a few simple facts."),
    ("Goodbye.", "Goodbye! Have a nice day."),
)
SYSTEM = ("You are a helpful assistant.", "Answer in one short sentence.", "You are a patient teacher.", None, None, None)
POLITE = ("Sure.", "Of course.", "Happy to help.", "")

Message = dict[str, str]


def question(rng: random.Random, subject: str) -> tuple[str, str]:
    """A question of a subject and its answer. The choices that stood beside it in the question bank are drawn as well, so that a seed stays worth the same."""
    text, right, others = _drawn(rng, subject)
    rng.shuffle([*rng.sample([other for other in others if other != right], 3), right])
    return text, right


def _drawn(rng: random.Random, subject: str) -> tuple[str, str, Sequence[str]]:
    if subject == "world_capitals":
        country = rng.choice(list(CAPITALS))
        return rng.choice([f"What is the capital of {country}?", f"Which city is the capital of {country}?"]), CAPITALS[country], list(CAPITALS.values())
    if subject == "opposites":
        one, other = rng.choice(OPPOSITES)
        if rng.random() < 0.5:
            one, other = other, one
        text = rng.choice([f"What is the opposite of {one}?", f"Which word means the opposite of {one}?"])
        return text, other, [word for pair in OPPOSITES for word in pair if word != one]
    if subject == "elementary_addition":
        first, second = rng.randint(0, 12), rng.randint(0, 12)
        return f"What is {first} plus {second}?", str(first + second), [str(value) for value in range(max(0, first + second - 5), first + second + 6)]
    if subject == "elementary_subtraction":
        first = rng.randint(0, 15)
        second = rng.randint(0, first)
        return f"What is {first} minus {second}?", str(first - second), [str(value) for value in range(max(0, first - second - 5), first - second + 6)]
    if subject == "calendar":
        names = rng.choice([WEEK, YEAR])
        place, where = rng.randrange(len(names)), rng.choice(["after", "before"])
        right = names[(place + 1) % len(names)] if where == "after" else names[place - 1]
        unit = "day" if names is WEEK else "month"
        return f"Which {unit} comes right {where} {names[place]}?", right, [name for name in names if name != names[place]]
    if subject == "young_animals":
        animal, young = rng.choice(YOUNG)
        return rng.choice([f"What is a young {animal} called?", f"The young of a {animal} is called a"]), young, [pair[1] for pair in YOUNG]
    if subject == "categories":
        kind = rng.choice(list(CATEGORIES))
        right = rng.choice(CATEGORIES[kind])
        return f"Which of these is a kind of {kind}?", right, [member for other, members in CATEGORIES.items() if other != kind for member in members]
    element, symbol = rng.choice(ELEMENTS)
    return rng.choice([f"What is the chemical symbol of {element}?", f"Which symbol stands for {element}?"]), symbol, [pair[1] for pair in ELEMENTS]


def bank(folder: Path) -> dict[str, list[list[str]]]:
    """By subject the rows (question, A, B, C, D, letter) of every split that a question bank in hendrycks' form has."""
    found: dict[str, list[list[str]]] = {subject: [] for subject in SUBJECTS}
    for subject, rows in found.items():
        for split in SPLITS:
            if (path := folder / split / f"{subject}_{split}.csv").exists():
                with path.open(newline="", encoding="utf-8") as file:
                    rows.extend(csv.reader(file))
    return found


def block(rows: Sequence[Sequence[str]], subject: str) -> str:
    """Few-shot text of hendrycks/test for `rows`, answers included."""
    text = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
    for asked, a, b, c, d, letter in rows:
        text += f"{asked}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer: {letter}\n\n"
    return text


def conversation(rng: random.Random) -> list[Message]:
    """One to four exchanges, sometimes with a system message."""
    messages = []
    if system := rng.choice(SYSTEM):
        messages.append({"role": "system", "content": system})
    for _ in range(rng.randint(1, 4)):
        kind = rng.random()
        if kind < 0.6:
            asked, answer = _open(rng)
            answer = f"{rng.choice(POLITE)} {answer}".strip()
        elif kind < 0.75:
            asked, answer = _code(rng)
        elif kind < 0.9:
            asked, answer = _list(rng)
        else:
            asked, answer = rng.choice(SMALL_TALK)
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return messages


_SENTENCES: Mapping[str, str] = {
    "world_capitals": "The capital is {}.",
    "opposites": "The opposite is {}.",
    "elementary_addition": "The answer is {}.",
    "elementary_subtraction": "The answer is {}.",
    "calendar": "It is {}.",
    "young_animals": "It is called a {}.",
    "categories": "One example is {}.",
    "chemical_symbols": "The symbol is {}.",
}


def _open(rng: random.Random) -> tuple[str, str]:
    subject = rng.choice(SUBJECTS)
    asked, right = question(rng, subject)
    if subject == "categories":
        asked = asked.replace("Which of these is a kind of", "Name a kind of").rstrip("?") + "."
    return asked, _SENTENCES[subject].format(right)


def _code(rng: random.Random) -> tuple[str, str]:
    name = rng.choice(["add", "sub", "mul"])
    one, two = rng.sample(["a", "b", "x", "y", "n", "m"], 2)
    operator, verb = {"add": ("+", "adds"), "sub": ("-", "subtracts"), "mul": ("*", "multiplies")}[name]
    return (
        f"Write a Python function that {verb} two numbers {one} and {two}.",
        f"```python\ndef {name}({one}, {two}):\n    return {one} {operator} {two}\n```",
    )


def _list(rng: random.Random) -> tuple[str, str]:
    kind = rng.choice(list(CATEGORIES))
    members = rng.sample(CATEGORIES[kind], rng.randint(2, 5))
    return f"List {len(members)} {kind}s.", "\n".join(f"{number}. {member}" for number, member in enumerate(members, start=1))
