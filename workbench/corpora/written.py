"""Plain passages, for what a model loses on language as such. Written for this workbench.

They are on many subjects, so that the mean log-probability of their tokens says how well a
model still reads. They are few: for a figure to be quoted, give your own text.
"""

from typing import Any

from hooks import Prompts
from workbench.corpora.corpus import Corpus, text
from workbench.models import prompts

PROSE: tuple[str, ...] = (
    "The river rises in the hills to the north and runs slowly through the plain before it "
    "reaches the sea. In spring, when the snow melts, the lower meadows are flooded for several "
    "weeks.",
    "Bread dough needs time. After the flour, water, salt and yeast have been mixed, it should "
    "rest in a warm place until it has doubled in size, and only then be shaped and baked.",
    "Most bridges of that period were built of stone, because timber was scarce and iron was "
    "still expensive. Many of them carry traffic to this day, although they were made for "
    "carts.",
    "She closed the door behind her and stood for a moment in the dark hall. Somewhere above, a "
    "clock was ticking. Nobody had lived in the house since her grandfather died.",
    "A vaccine teaches the immune system to recognise a virus before the body meets it. Some of "
    "the cells that learn this remain for years, so that a later infection is fought quickly.",
    "The committee met on Tuesday to discuss the budget for the coming year. Members agreed "
    "that the library should stay open in the evening, but could not agree on how to pay for "
    "it.",
    "Light from the nearest star takes more than four years to reach the earth. What we see "
    "when we look at the night sky is therefore not the present but the past.",
    "To change a wheel, first loosen the nuts a little while the car still stands on the "
    "ground. Then lift it with the jack, take the nuts off, and pull the wheel towards you.",
    "Trade between the two islands grew quickly once the harbour was finished. Ships brought "
    "cloth and tools, and went back with fruit, wool and a small amount of silver.",
    "The experiment was repeated three times with different samples. In every case the "
    "temperature rose during the first hour and then stayed constant, which the theory had not "
    "predicted.",
    "Children learn the grammar of their language without being taught any rules. By the age of "
    "five, most of them can form sentences that they have never heard before.",
    "The concert began late because the pianist had missed her train. When she finally walked "
    "on to the stage, the audience stood up and applauded for almost a minute.",
    "Wolves live in packs that usually consist of a pair and their young. They hunt together, "
    "which allows them to catch animals that are much larger than themselves.",
    "If the price of a good rises, people tend to buy less of it. Economists call this the law "
    "of demand, although there are exceptions, such as things that are bought to impress "
    "others.",
    "The old map shows a road along the coast that no longer exists. Part of it was washed away "
    "by storms in the last century, and the rest is covered by houses.",
    "He had promised to write every week, and for the first year he did. Then the letters "
    "became shorter, and one winter they stopped altogether, and she never learned why.",
)


def prose(model: Any, *, passages: int = len(PROSE)) -> Prompts:
    """The first `passages` of `PROSE` as the model's tokens."""
    if not 1 <= passages <= len(PROSE):
        raise ValueError(f"{passages} passages were asked for, there are 1 to {len(PROSE)}")
    return prompts(model, PROSE[:passages])


def passages(model: Any, *, length: int = 64, most_tokens: int | None = None) -> Corpus:
    """All of `PROSE` as a corpus, each passage a document: for rehearsals and demonstrations."""
    named = {f"passage {number}": one for number, one in enumerate(PROSE)}
    return text(model, named, name="prose", length=length, most_tokens=most_tokens)
