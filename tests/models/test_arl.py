import pytest
import torch

from aupipe.models.arl import ARL, FaceGraph, GraphLayer, NodeFeatures

pytestmark = pytest.mark.unit


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def unit_nodes(batch: int = 3, width: int = 8) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(batch, 12, width), dim=-1)


def test_parameter_counts_of_the_paper() -> None:
    with torch.device("meta"):
        arl = ARL(channels=512, neighbors=4, count_self=True, output="shared")
        per_node = ARL(channels=512, neighbors=4, count_self=True, output="per_node")
    assert parameters(arl.nodes) == 3_164_160
    assert parameters(arl.layer) == 525_336
    assert parameters(arl.predict) == 73_740
    assert parameters(per_node.predict) == 12 * 513


def test_node_features_are_twelve_linear_layers_with_batch_norm() -> None:
    torch.manual_seed(0)
    nodes = NodeFeatures(channels=6)
    features = torch.randn(4, 6, 3, 3)
    tokens = features.flatten(2).transpose(1, 2)  # (B, 9, 6)
    weight, bias = nodes.project.weight.view(12, 6, 6), nodes.project.bias.view(12, 6)
    expected = []
    for au in range(12):
        projected = (tokens @ weight[au].T + bias[au]).transpose(1, 2)
        expected.append(torch.nn.BatchNorm1d(6)(projected).relu().mean(dim=-1))
    torch.testing.assert_close(nodes(features), torch.stack(expected, dim=1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("neighbors", [1, 4, 12])
def test_graph_takes_the_most_similar_and_divides_by_their_number(neighbors: int) -> None:
    nodes = unit_nodes()
    graph = FaceGraph(neighbors=neighbors, count_self=True)(nodes)
    for face, own in zip(graph, nodes, strict=True):
        for row, similar in zip(face, own @ own.T, strict=True):
            expected = torch.zeros(12)
            expected[similar.argsort(descending=True)[:neighbors]] = 1 / neighbors
            torch.testing.assert_close(row, expected)
        assert (face.diagonal() > 0).all()  # of equal length, each is most like itself


def test_graph_is_directed_and_can_exclude_self_loops() -> None:
    graph = FaceGraph(neighbors=4, count_self=False)(unit_nodes())
    assert (graph.diagonal(dim1=-2, dim2=-1) == 0).all()
    assert ((graph > 0).sum(-1) == 4).all()
    assert not torch.equal(graph, graph.mT)


def test_equal_similarities_are_all_neighbors() -> None:
    nodes = torch.zeros(1, 12, 8)
    nodes[:, :6, 0], nodes[:, 6:, 1] = 1, 2  # two groups of six that have nothing in common
    graph = FaceGraph(neighbors=4, count_self=True)(nodes)[0]
    block = torch.full((6, 6), 1 / 6)
    torch.testing.assert_close(graph, torch.block_diag(block, block))


def test_graph_normalizes_with_both_degrees() -> None:
    nodes = torch.zeros(1, 12, 8)
    nodes[0, :3, 0] = torch.tensor([1.0, 2.0, 3.0])  # node 2 is the most alike of 0, 1 and itself
    nodes[0, 3:, 1] = 1
    graph = FaceGraph(neighbors=1, count_self=True)(nodes)[0]
    torch.testing.assert_close(graph[:3, :3], torch.tensor([[0.0, 0, 1], [0, 0, 1], [0, 0, 1]]))
    torch.testing.assert_close(graph[4, 3:], torch.full((9,), 1 / 9))
    nodes[0, 0] = 0  # similar to none, so all twelve are equally near
    graph = FaceGraph(neighbors=1, count_self=True)(nodes)[0]
    torch.testing.assert_close(graph[0, 2], torch.tensor((12 * 1) ** -0.5))
    torch.testing.assert_close(graph[0, 4], torch.tensor((12 * 9) ** -0.5))


def test_graph_has_no_gradient_and_does_not_depend_on_autocast() -> None:
    nodes = unit_nodes().requires_grad_()
    chooser = FaceGraph(neighbors=4, count_self=True)
    graph = chooser(nodes)
    assert not graph.requires_grad
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(chooser(nodes), graph)
    chooser(nodes).sum()
    assert nodes.grad is None


def test_layer_matches_the_formula_with_batch_norm_over_nodes() -> None:
    torch.manual_seed(0)
    layer, nodes = GraphLayer(channels=8), unit_nodes(batch=5)
    graph = FaceGraph(neighbors=4, count_self=True)(nodes)
    mixed = graph @ layer.neighbor(nodes) + layer.own(nodes)
    mean, var = mixed.mean(dim=(0, 2), keepdim=True), mixed.var(dim=(0, 2), unbiased=False, keepdim=True)
    expected = (nodes + (mixed - mean) / (var + 1e-5).sqrt()).relu()
    torch.testing.assert_close(layer(nodes, graph), expected)
    assert layer.norm.running_mean.shape == (12,)


def test_with_the_full_graph_the_layer_treats_nodes_alike() -> None:
    layer, nodes = GraphLayer(channels=8).eval(), unit_nodes()
    full, order = FaceGraph(neighbors=12, count_self=True), torch.randperm(12)
    assert (full(nodes) - 1 / 12).abs().max() < 1e-6
    shuffled = nodes[:, order]
    torch.testing.assert_close(layer(shuffled, full(shuffled)), layer(nodes, full(nodes))[:, order])


@pytest.mark.parametrize("output", ["shared", "per_node"])
def test_logits_come_from_all_nodes_or_from_the_own_one(output: str) -> None:
    torch.manual_seed(0)
    arl = ARL(channels=8, neighbors=4, count_self=True, output=output).eval()
    related, logits = arl(torch.randn(2, 8, 3, 3))
    assert related.shape == (2, 12, 8)
    assert logits.shape == (2, 12)
    other = related.detach().clone()
    other[:, 5] += 1
    changed = (arl.predict(other) - logits).abs().amax(dim=0) > 1e-6
    assert changed.tolist() == [output == "shared" or au == 5 for au in range(12)]
