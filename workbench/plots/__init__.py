"""Results to figures. Draws what it is given; computes nothing but where things go.

The only room that knows matplotlib. It knows no model, and no file but the one that `save` is
told to write. Importing it lets results show themselves in Jupyter.
"""

from functools import singledispatch
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench import results
from workbench.heads import (
    Backups,
    Clusters,
    HeadEffects,
    HeadRedundancy,
    HeadSimilarity,
    HeadTypes,
    Importance,
    ImportanceAgreement,
    Interaction,
    PruningCurve,
    PruningStudy,
    Redundancy,
    SelfRepair,
    Substitution,
)
from workbench.lens import DirectAttribution, LogitLens
from workbench.neurons import (
    Activity,
    Atlas,
    Composition,
    ConceptNeurons,
    ConceptStudy,
    Confidence,
    Explained,
    KnowledgeNeurons,
    NeuronAttribution,
    NeuronEffects,
    Screen,
    Triggers,
    Universal,
    Written,
)
from workbench.patching import (
    AcdcCircuit,
    CircuitStudy,
    EdgeScores,
    FaithfulnessCurve,
    Minimality,
    PathEffects,
    Ranking,
    Sweep,
    Sweeps,
    Tracing,
)
from workbench.plots.answer_heads import draw_answer_heads
from workbench.plots.attention import AttentionView, attention
from workbench.plots.circuits import (
    draw_acdc_circuit,
    draw_circuit_study,
    draw_edge_scores,
    draw_faithfulness_curve,
    draw_minimality,
)
from workbench.plots.composition import draw_composition
from workbench.plots.concepts import (
    draw_amnesia,
    draw_completeness,
    draw_steering,
    draw_tcav,
    draw_transfer,
    draw_use,
)
from workbench.plots.head_study import draw_head_redundancy
from workbench.plots.heads import draw_head_effects
from workbench.plots.importance import draw_agreement, draw_importance
from workbench.plots.kinds import draw_head_types
from workbench.plots.lens import draw_direct_attribution, draw_logit_lens
from workbench.plots.likelihood import draw_minimal_pairs, draw_region_surprisal
from workbench.plots.likeness import draw_head_similarity, draw_substitution
from workbench.plots.neuron_effects import (
    draw_concept_neurons,
    draw_concept_study,
    draw_knowledge_neurons,
    draw_neuron_attribution,
    draw_neuron_effects,
    draw_screen,
)
from workbench.plots.neuron_pages import atlas_fragment, atlas_page, save_atlas
from workbench.plots.neurons import (
    draw_activity,
    draw_atlas,
    draw_confidence,
    draw_explained,
    draw_triggers,
    draw_universal,
    draw_written,
)
from workbench.plots.patching import draw_ranking, draw_sweep, draw_sweeps
from workbench.plots.paths import draw_path_effects, draw_tracing
from workbench.plots.probes import draw_probe_study
from workbench.plots.pruning_curves import draw_pruning_curve, draw_pruning_study
from workbench.plots.redundancy import (
    draw_backups,
    draw_clusters,
    draw_interaction,
    draw_redundancy,
)
from workbench.plots.self_repair import draw_self_repair
from workbench.plots.style import encoded
from workbench.probes import (
    Amnesia,
    Completeness,
    MinimalPairs,
    ProbeStudy,
    RegionSurprisal,
    SteeringCurve,
    Tcav,
    Transfer,
    Use,
)
from workbench.studies import AnswerHeads

__all__ = [
    "AttentionView",
    "atlas_page",
    "attention",
    "draw",
    "interactive",
    "png",
    "save",
    "save_atlas",
]


@singledispatch
def draw(result: object, ax: Axes | None = None) -> Figure:
    """The one figure that shows a result; each kind of result has its own.

    A new figure, unknown to pyplot; or, where `ax` is given, the main panel drawn into it, and
    the figure that it belongs to.
    """
    known = ", ".join(sorted(kind.__name__ for kind in draw.registry if kind is not object))
    raise NotImplementedError(
        f"there is no figure for {type(result).__name__}, only for {known}: write a function from "
        "the result to a Figure in workbench/plots/ and register it there with draw.register"
    )


draw.register(HeadEffects, draw_head_effects)
draw.register(Importance, draw_importance)
draw.register(ImportanceAgreement, draw_agreement)
draw.register(HeadTypes, draw_head_types)
draw.register(HeadSimilarity, draw_head_similarity)
draw.register(Substitution, draw_substitution)
draw.register(Redundancy, draw_redundancy)
draw.register(Interaction, draw_interaction)
draw.register(Backups, draw_backups)
draw.register(Clusters, draw_clusters)
draw.register(SelfRepair, draw_self_repair)
draw.register(PruningCurve, draw_pruning_curve)
draw.register(PruningStudy, draw_pruning_study)
draw.register(HeadRedundancy, draw_head_redundancy)
draw.register(LogitLens, draw_logit_lens)
draw.register(DirectAttribution, draw_direct_attribution)
draw.register(Sweep, draw_sweep)
draw.register(Sweeps, draw_sweeps)
draw.register(Ranking, draw_ranking)
draw.register(PathEffects, draw_path_effects)
draw.register(Tracing, draw_tracing)
draw.register(AnswerHeads, draw_answer_heads)
draw.register(CircuitStudy, draw_circuit_study)
draw.register(FaithfulnessCurve, draw_faithfulness_curve)
draw.register(EdgeScores, draw_edge_scores)
draw.register(AcdcCircuit, draw_acdc_circuit)
draw.register(Minimality, draw_minimality)
draw.register(Amnesia, draw_amnesia)
draw.register(Use, draw_use)
draw.register(Completeness, draw_completeness)
draw.register(Tcav, draw_tcav)
draw.register(SteeringCurve, draw_steering)
draw.register(Transfer, draw_transfer)
draw.register(MinimalPairs, draw_minimal_pairs)
draw.register(RegionSurprisal, draw_region_surprisal)
draw.register(ProbeStudy, draw_probe_study)
draw.register(Activity, draw_activity)
draw.register(Atlas, draw_atlas)
draw.register(Explained, draw_explained)
draw.register(Triggers, draw_triggers)
draw.register(Written, draw_written)
draw.register(Universal, draw_universal)
draw.register(Composition, draw_composition)
draw.register(Confidence, draw_confidence)
draw.register(NeuronEffects, draw_neuron_effects)
draw.register(NeuronAttribution, draw_neuron_attribution)
draw.register(Screen, draw_screen)
draw.register(ConceptNeurons, draw_concept_neurons)
draw.register(ConceptStudy, draw_concept_study)
draw.register(KnowledgeNeurons, draw_knowledge_neurons)


@singledispatch
def interactive(result: object) -> str:
    """HTML to look into a result with, for any page; empty where this kind has none."""
    return ""


@interactive.register
def _(result: HeadTypes) -> str:
    where = f"{result.task}, its first prompt; the strongest heads of each type"
    patterns = result.pattern.numpy()
    return AttentionView(patterns, list(result.shown), list(result.words), where).fragment()


@interactive.register
def _(result: HeadRedundancy) -> str:
    where = f"{result.task}, its first prompt; the heads that are named on this page"
    patterns = result.pattern.numpy()
    return AttentionView(patterns, list(result.shown), list(result.words), where).fragment()


@interactive.register
def _(result: Atlas) -> str:
    return atlas_fragment(result)


def save(result_or_figure: object, path: Path | str) -> None:
    """Write a figure, or the figure of a result, as the png, pdf or svg that `path` ends in."""
    figure = result_or_figure if isinstance(result_or_figure, Figure) else draw(result_or_figure)
    Path(path).write_bytes(encoded(figure, Path(path).suffix.removeprefix(".").lower()))


def png(result: object) -> bytes:
    """The figure of a result as the bytes of a png."""
    return encoded(draw(result), "png")


@results.drawn_by
def _shown(result: object) -> bytes | None:
    """What Jupyter shows: nothing where this kind of result has no figure."""
    return None if draw.dispatch(type(result)) is draw.dispatch(object) else png(result)
