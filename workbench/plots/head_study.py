"""The figure of all that is known about which heads stand in for each other."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.heads import HeadRedundancy
from workbench.plots.heads import draw_head_effects
from workbench.plots.kinds import draw_head_types
from workbench.plots.likeness import draw_head_similarity
from workbench.plots.pruning_curves import draw_pruning_curve
from workbench.plots.redundancy import draw_backups, draw_clusters, draw_redundancy, named
from workbench.plots.self_repair import draw_self_repair
from workbench.plots.style import new_figure, styled, titled


def draw_head_redundancy(result: HeadRedundancy, ax: Axes | None = None) -> Figure:
    """Eight panels: what each head costs and is, which are alike, which stand in, what can go.

    Only the pairs are drawn where `ax` is given.
    """
    title = f"{result.task}: which heads stand in for each other, {result.model}"
    if ax is not None:
        return draw_redundancy(result.pairs, ax)
    gone = "+".join(named(head) for head in result.takes_over.of)
    with styled():
        figure = new_figure(width=15.0, height=9.4)
        panels = figure.subplots(2, 4).ravel()
        draw_head_effects(result.alone, panels[0])
        draw_head_types(result.types, panels[1])
        draw_head_similarity(result.alike, panels[2])
        draw_redundancy(result.pairs, panels[3])
        draw_clusters(result.clusters, panels[4])
        draw_backups(result.takes_over, panels[5])
        draw_self_repair(result.repair, panels[6])
        draw_pruning_curve(result.curve, panels[7])
        says = (
            "each head alone (outlined: p ≤ 0.05)",
            "what kind of head each is",
            "which write alike (debiased CKA of outputs)",
            "pairs beyond the sum (outlined: p ≤ 0.05)",
            "clusters of those (blue)",
            f"who takes over for {gone} (filled: accepted)",
            "what comes back without a head (diamond: sum)",
            "what is left (bands: 95 %; random: all draws)",
        )
        for panel, letter, text in zip(panels, "abcdefgh", says, strict=True):
            panel.set_title(f"{letter}  {text}", fontsize=8.5)
        return titled(panels[0], title)
