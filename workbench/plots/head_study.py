"""The figure of all that is known about which heads stand in for each other."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.heads import HeadRedundancy
from workbench.plots.heads import draw_head_effects
from workbench.plots.pruning_curves import draw_pruning_curve
from workbench.plots.redundancy import draw_backups, draw_clusters, draw_redundancy, named
from workbench.plots.self_repair import draw_self_repair
from workbench.plots.style import new_figure, styled, titled


def draw_head_redundancy(result: HeadRedundancy, ax: Axes | None = None) -> Figure:
    """Six panels: each head alone, pairs, clusters, who takes over, what comes back, the curve.

    Only the pairs are drawn where `ax` is given.
    """
    title = f"{result.task}: which heads stand in for each other, {result.model}"
    if ax is not None:
        return draw_redundancy(result.pairs, ax)
    with styled():
        figure = new_figure(width=11.5, height=8.2)
        panels = figure.subplots(2, 3)
        draw_head_effects(result.alone, panels[0, 0])
        draw_redundancy(result.pairs, panels[0, 1])
        draw_clusters(result.clusters, panels[0, 2])
        draw_backups(result.takes_over, panels[1, 0])
        draw_self_repair(result.repair, panels[1, 1])
        draw_pruning_curve(result.curve, panels[1, 2])
        gone = "+".join(named(head) for head in result.takes_over.of)
        says = {
            (0, 0): "each head alone (outlined: p ≤ 0.05)",
            (0, 1): "pairs beyond the sum (outlined: p ≤ 0.05)",
            (0, 2): "clusters of those (blue)",
            (1, 0): f"who takes over for {gone} (filled: accepted)",
            (1, 1): "what comes back without a head (diamond: sum)",
            (1, 2): "what is left (bands: 95 %; random: all draws)",
        }
        for at, text in says.items():
            panels[at].set_title(f"{'abcdef'[3 * at[0] + at[1]]}  {text}", fontsize=8.5)
        return titled(panels[0, 0], title)
