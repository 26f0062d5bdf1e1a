"""What the residual stream already says about the answer, and who wrote it there.

The logit lens reads each layer through the final norm and the unembedding (nostalgebraist
2020). Direct logit attribution splits the final logit difference into what every head and MLP
wrote (Elhage et al. 2021). Neither shows what a component causes: for that, intervene.
"""

from workbench.lens.direct import DirectAttribution, direct_attribution
from workbench.lens.layers import LogitLens, logit_lens

__all__ = ["DirectAttribution", "LogitLens", "direct_attribution", "logit_lens"]
