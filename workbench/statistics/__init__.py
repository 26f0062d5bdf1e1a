"""Numbers, one per prompt, to an estimate with bounds, and to what is left after many tests.

Knows no model, task or metric: a value per prompt comes in, with the prompt axis last, and an
answer per cell goes out. All arithmetic is numpy float64 outside BLAS, so that the same seed gives
the same bits whatever the number of threads. Randomness is handed in, never taken from a global
generator; `derive` makes generators that do not disturb each other.

Bounds    Studentised bootstrap over prompts, or over whole groups (Efron & Tibshirani 1993, ch. 12;
          Davison & Hinkley 1997, ch. 2). Exact binomial bounds for successes (Clopper & Pearson
          1934; with groups, at the effective sample size: Korn & Graubard 1998). Where values lie
          in a known range and few may be far out, Gaffke's (2005).
Tests     Paired sign flips (Fisher 1935), the largest |t| over all cells for the family-wise error
          (Westfall & Young 1993, single step), Benjamini & Hochberg 1995 for the false discoveries.
"""

from workbench.statistics.estimates import Bounds, Estimate, bounds, estimate, proportion
from workbench.statistics.matching import matching_test
from workbench.statistics.permutation import (
    PermutationTest,
    benjamini_hochberg,
    permutation_test,
)
from workbench.statistics.placebo import PlaceboTest, placebo_test
from workbench.statistics.randomness import Randomness, derive
from workbench.statistics.ranged import RangedMean, ranged_mean
from workbench.statistics.ranks import auroc, rank_correlation
from workbench.statistics.tables import table

__all__ = [
    "Bounds",
    "Estimate",
    "PermutationTest",
    "PlaceboTest",
    "Randomness",
    "RangedMean",
    "auroc",
    "benjamini_hochberg",
    "bounds",
    "derive",
    "estimate",
    "matching_test",
    "permutation_test",
    "placebo_test",
    "proportion",
    "ranged_mean",
    "rank_correlation",
    "table",
]
