"""The words that tasks are made of, and that the tiny models know.

Short common words, so that most tokenizers know each as a single token; the tasks check it.
"""

NAMES = (
    "Mary John Tom James Anna Paul Mark Peter Sarah David Kate Alice Jack Emma Henry Laura "
    "Michael Robert Susan Lisa George Kevin Brian Jason Adam Simon Daniel Helen Julia Martin "
    "Charles William Thomas Richard Joseph Matthew Andrew Joshua Ryan Eric Stephen Jonathan "
    "Scott Justin Brandon Benjamin Samuel Gregory Frank Alexander Patrick Raymond Dennis "
    "Aaron Jose Nathan Douglas Walter Kyle Carl Arthur Ethan Roger Keith Jeremy Terry Harry"
).split()
WOMEN = "Mary Anna Sarah Kate Alice Emma Laura Susan Lisa Helen Julia".split()
MEN = "John Tom James Paul Mark Peter David Jack Henry Michael Robert George Kevin".split()
PLACES = "store park school garden house station office restaurant hospital library".split()
OBJECTS = "book ring ball letter cup coin key lamp toy map pen hat".split()
"""Things that one person can give to another."""

CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Germany": "Berlin", "Spain": "Madrid",
    "England": "London", "Russia": "Moscow", "Japan": "Tokyo", "China": "Beijing",
    "Egypt": "Cairo", "Greece": "Athens", "Austria": "Vienna", "Ireland": "Dublin",
    "Norway": "Oslo", "Poland": "Warsaw", "Cuba": "Havana", "Iraq": "Baghdad",
    "Portugal": "Lisbon", "Canada": "Ottawa", "Hungary": "Budapest", "Sweden": "Stockholm",
    "Turkey": "Ankara", "Thailand": "Bangkok", "Iran": "Tehran", "Kenya": "Nairobi",
    "Chile": "Santiago", "Peru": "Lima", "Finland": "Helsinki", "Denmark": "Copenhagen",
}  # fmt: skip

NOUNS = {
    "boy": "boys", "girl": "girls", "man": "men", "woman": "women", "teacher": "teachers",
    "student": "students", "doctor": "doctors", "farmer": "farmers", "author": "authors",
    "dog": "dogs", "cat": "cats", "car": "cars", "tree": "trees", "king": "kings",
    "key": "keys", "house": "houses", "child": "children", "friend": "friends",
}  # fmt: skip
"""singular: plural."""
VERBS = {"is": "are", "was": "were", "has": "have"}
"""singular: plural."""

KINDS = {
    "bird": "sparrow eagle crow owl parrot duck hawk".split(),
    "fish": "salmon trout shark tuna cod".split(),
    "fruit": "apple banana orange grape peach cherry lemon".split(),
    "tool": "hammer saw drill wrench shovel".split(),
    "color": "red blue green yellow purple brown".split(),
    "mammal": "dog cat horse cow sheep lion tiger wolf".split(),
    "vehicle": "car truck bus train bicycle van".split(),
    "metal": "iron steel copper zinc tin".split(),
}
"""Kind: its members. No member is of another kind here too, and no kind is a kind of another."""

EVENTS = "war battle treaty siege tour strike project program reign dispute".split()

PLEASANT = "wonderful lovely great beautiful delightful excellent charming superb".split()
UNPLEASANT = "terrible awful horrible dreadful miserable nasty disgusting boring".split()
PLAIN = "long short new typical recent usual simple regular".split()
EXPERIENCES = "meal trip film party concert holiday dinner story".split()
"""What sentences about feelings are made of; the tiny models need not know them."""

OTHER = (
    "The the A a an and or of to in on at by with for from near behind beside that who which "
    "When Then After While Because Today went gave give said had sat got fun stayed left worked "
    "handed offered met One day where there friends about lasted year years began ended "
    "It it He he She she they his her Her him them so very tired happy sad wept laughed was "
    "capital city country kind kinds type sort called name named is are were has have not "
    "know we We Everyone said says likes late home table box window door this This "
    "day long together afternoon started until every Every In when while after sent brought left "
    "because lot wanted decided working thinking hanging out drink"
).split()  # fmt: skip


def all_words() -> list[str]:
    """Every word of the lists above once, in a fixed order."""
    listed = [*OTHER, *NAMES, *PLACES, *OBJECTS, *CAPITALS, *CAPITALS.values()]
    listed += [*NOUNS, *NOUNS.values(), *VERBS, *VERBS.values(), *EVENTS, *KINDS]
    listed += [word for words in KINDS.values() for word in words]
    return list(dict.fromkeys(listed))
