import pytest

from qa import reach
from qa.reach import Edge

GEMMA = {"max_position_embeddings": 32768, "sliding_window": 512, "layer_types": ["sliding_attention", "full_attention"]}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"max_position_embeddings": 32768, "sliding_window": 4096}, {"sliding_window": 4096}),
        ({"max_position_embeddings": 4096, "sliding_window": 4096}, {}),
        ({"max_position_embeddings": 32768, "sliding_window": 4096, "use_sliding_window": False}, {}),
        ({"max_position_embeddings": 32768, "sliding_window": None}, {}),
        (GEMMA, {"sliding_window": 512}),
        (GEMMA | {"layer_types": ["full_attention"]}, {}),
        ({"text_config": GEMMA, "model_type": "gemma3"}, {"sliding_window": 512}),
        ({"max_position_embeddings": 131072, "rope_parameters": YARN}, {"original_max_position_embeddings": 32768}),
        ({"max_position_embeddings": 131072, "rope_scaling": YARN}, {"original_max_position_embeddings": 32768}),
        ({"max_position_embeddings": 131072, "rope_parameters": {"full_attention": YARN}}, {"original_max_position_embeddings": 32768}),
        ({"max_position_embeddings": 131072, "original_max_position_embeddings": 4096}, {"original_max_position_embeddings": 4096}),
        ({"max_position_embeddings": 262144, "attention_chunk_size": 8192, "floor_scale": 8192}, {"attention_chunk_size": 8192, "floor_scale": 8192}),
        ({"max_position_embeddings": "many", "sliding_window": "some", "rope_scaling": [1], "layer_types": 7}, {}),
    ],
)
def test_edges(config: dict[str, object], expected: dict[str, int]) -> None:
    assert {edge.key: edge.tokens for edge in reach.edges(config)} == expected


def test_a_header_has_edges_too() -> None:
    header = {"general.architecture": "gemma3", "gemma3.context_length": "8192", "gemma3.attention.sliding_window": "512"}
    assert [edge.tokens for edge in reach.edges_of_header(header)] == [512]
    assert not list(reach.edges_of_header(header | {"gemma3.attention.sliding_window": "0"}))
    assert not list(reach.edges_of_header({}))


@pytest.mark.parametrize(
    ("edges", "context", "expected"),
    [
        ([], 131072, reach.SHORTEST),
        ([], 1024, 1024),
        ([768], 2048, 2048),
        ([512], 32768, 2048),
        ([4096], 32768, 8192),
        ([4096], 8192, 8192),
        ([8192], 131072, reach.LONGEST),
        ([32768], 131072, reach.SHORTEST),
        ([4096, 32768], 131072, 8192),
        ([2000], 2048, 2048),
    ],
)
def test_the_text_is_twice_as_long_as_the_farthest_edge_within_reach(edges: list[int], context: int, expected: int) -> None:
    assert reach.length([Edge(tokens=tokens, key="") for tokens in edges], context) == expected
