"""A run as one self-contained page: what was asked, what was found, and how it was made.

Knows no model, no analysis and no figure library: it is given a result's words and numbers, and a
figure that is drawn already. The page opens offline and asks nothing of any other machine.
"""

from workbench.report.page import write

__all__ = ["write"]
