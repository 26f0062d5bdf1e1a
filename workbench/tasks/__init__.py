"""Prompts with a known right answer.

Drawn from a seed, in the tokens of the model that is given, or read from your own strings and
from public files. Does not know how activations are read.
"""

from workbench.tasks.agreement import agreement
from workbench.tasks.conllu import read_conllu
from workbench.tasks.demonstrations import read_function_vectors
from workbench.tasks.feelings import feeling_sentences, feelings
from workbench.tasks.grammar import grammar
from workbench.tasks.greater_than import greater_than
from workbench.tasks.induction import induction
from workbench.tasks.ioi import ioi
from workbench.tasks.join import joined
from workbench.tasks.knowledge import capitals, gender, hypernymy
from workbench.tasks.labelled import LabelledWords
from workbench.tasks.make import from_frame, make, read_csv
from workbench.tasks.pairs import SentencePairs, pairs
from workbench.tasks.planted import brackets, gate, planted
from workbench.tasks.readers import read_counterfact, read_eap_ig, read_feature_circuits
from workbench.tasks.solved import Solved, solved
from workbench.tasks.spans import read_spans
from workbench.tasks.statements import Labelled, number, part_of_speech, truth
from workbench.tasks.syntaxgym import RegionSuite, read_syntaxgym
from workbench.tasks.task import Task
from workbench.tasks.verdicts import verdicts

__all__ = [
    "Labelled",
    "LabelledWords",
    "RegionSuite",
    "SentencePairs",
    "Solved",
    "Task",
    "agreement",
    "brackets",
    "capitals",
    "feeling_sentences",
    "feelings",
    "from_frame",
    "gate",
    "gender",
    "grammar",
    "greater_than",
    "hypernymy",
    "induction",
    "ioi",
    "joined",
    "make",
    "number",
    "pairs",
    "part_of_speech",
    "planted",
    "read_conllu",
    "read_counterfact",
    "read_csv",
    "read_eap_ig",
    "read_feature_circuits",
    "read_function_vectors",
    "read_spans",
    "read_syntaxgym",
    "solved",
    "truth",
    "verdicts",
]
