"""The way of a release: the graph of all stages that a recipe wants."""

from config.recipe import Recipe
from service.release import checks, kinds, stages
from service.release.graph import Graph, graph_of


def way(recipe: Recipe) -> Graph:
    """The graph of the recipe's stages, from an upstream commit to published repos."""
    return graph_of(checks.attached([*stages.declared(recipe), *kinds.stages(recipe)]))
