"""Which heads are alike? In where they attend, what they write, which weights they have, and use.

Attention (`patterns`), outputs (`outputs`), weights (`weights`); and whether one can stand in
for another (`standing_in`).
"""

from workbench.heads.likeness.comparing import similarity
from workbench.heads.likeness.result import MEASURES, HeadSimilarity, Measure
from workbench.heads.likeness.standing_in import Substitution, substitute

__all__ = ["MEASURES", "HeadSimilarity", "Measure", "Substitution", "similarity", "substitute"]
