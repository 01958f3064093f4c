import pytest
import torch
from pydantic import ValidationError

from aupipe.errors import ConfigError
from aupipe.models.build import build
from aupipe.models.configs import RegionRelationConfig
from aupipe.models.inputs import InputSpec
from aupipe.models.interfaces import SequenceBatch, System

pytestmark = pytest.mark.unit

INPUT = InputSpec(size_px=32)
ROWS = {  # of table 2: settings, and the parts that exist beside the backbone
    "1-3": ({"arl": False, "lrp": False, "fusion": "none"}, {"whole"}),
    "4": ({"lrp": False, "fusion": "none"}, {"arl"}),
    "5": ({"fusion": "none"}, {"arl", "lrp"}),
    "6": ({}, {"arl", "lrp", "whole", "fusion"}),
    "6, fixed": ({"fusion": "fixed"}, {"arl", "lrp", "whole", "fusion"}),
    "per AU": ({"output": "per_node", "fusion_weight": "per_au"}, {"arl", "lrp", "whole", "fusion"}),
}


def make(**settings: object) -> System:
    torch.manual_seed(0)
    return build(RegionRelationConfig(backbone="iresnet_quick", fusion_mlp_width=64, **settings), INPUT)


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_of_the_paper() -> None:
    with torch.device("meta"):
        encoder = build(RegionRelationConfig(), InputSpec()).encoder
        relation = build(RegionRelationConfig(lrp=False, fusion="none"), InputSpec()).encoder
    assert parameters(encoder.backbone) == 65_155_648
    assert parameters(encoder.lrp) == 4 * 16_449
    assert parameters(encoder.arl) == 3_164_160 + 525_336 + 73_740
    assert parameters(encoder.whole) == 513 * 12
    layer = 4 * 512 * 513 + 2 * 512 * 2048 + 2048 + 512 + 4 * 512
    assert parameters(encoder.fusion) == 512 + 512 * 513 + 2 * layer + 2 * 512 + 2 * 513
    assert parameters(relation.backbone) == 52_309_568


@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_the_ablation_has_its_parts_and_none_idle(row: str) -> None:
    settings, parts = ROWS[row]
    system = make(**settings)
    assert {name for name, _ in system.encoder.named_children()} == {"backbone"} | parts
    logits = system(SequenceBatch.untimed(torch.randn(2, 3, 3, 32, 32)))["au"]
    assert logits.shape == (2, 3, 12)
    logits.square().sum().backward()
    idle = [name for name, p in system.named_parameters() if p.grad is None]
    assert not idle  # DistributedDataParallel stops at parameters that no loss reaches
    assert system.encoder.backbone.network.conv1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("row", ROWS)
def test_frames_are_predicted_independently(row: str) -> None:
    system = make(**ROWS[row][0]).eval()
    frames = torch.randn(4, 1, 3, 32, 32)
    logits = system(SequenceBatch.untimed(frames))["au"]
    assert torch.equal(logits[:, 0], system.encoder(frames[:, 0]))
    frames[0] = 0
    torch.testing.assert_close(system(SequenceBatch.untimed(frames))["au"][1:], logits[1:], atol=1e-5, rtol=1e-5)


def test_fixed_fusion_is_the_average_of_both_branches() -> None:
    encoder = make(fusion="fixed").encoder.eval()
    frames = torch.randn(3, 3, 32, 32)
    features = encoder.backbone(frames)
    related = encoder.arl(encoder.lrp(features))[1]
    whole = encoder.whole(encoder.backbone.pooled(features))
    torch.testing.assert_close(encoder(frames), (related + whole) / 2)


def test_region_map_and_relation_graph_of_a_face() -> None:
    encoder = make(neighbors=3).encoder.eval()
    frames = torch.randn(2, 3, 32, 32)
    regions = encoder.region_map(frames)
    assert regions.shape == (2, 2, 2) == (2, *encoder.backbone.grid)
    assert ((regions > 0) & (regions < 1)).all()
    graph = encoder.relation_graph(frames)
    assert graph.shape == (2, 12, 12)
    assert ((graph > 0).sum(-1) >= 3).all()
    for branch in encoder.lrp.branches:
        torch.nn.init.zeros_(branch[-1].weight)
        torch.nn.init.zeros_(branch[-1].bias)
    assert (encoder.region_map(frames) == 0.5).all()
    halved = encoder.arl.graph(encoder.arl.nodes(encoder.backbone(frames) / 2))
    assert torch.equal(encoder.relation_graph(frames), halved)


def test_missing_parts_are_refused_by_name() -> None:
    encoder = make(arl=False, lrp=False, fusion="none").encoder
    with pytest.raises(ConfigError, match=r"model\.lrp=false"):
        encoder.region_map(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ConfigError, match=r"model\.arl=false"):
        encoder.relation_graph(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arl": False, "fusion": "none"}, "lrp=true without arl=true"),
        ({"arl": False, "lrp": False}, "fusion=attention without arl=true"),
        ({"arl": False, "lrp": False, "fusion": "fixed"}, "fusion=fixed without arl=true"),
        ({"neighbors": 12, "count_self": False}, "11 others"),
        ({"neighbors": 13}, "neighbors"),
        ({"fusion": "mean"}, "fusion"),
    ],
)
def test_invalid_combinations_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RegionRelationConfig(**settings)


def test_any_backbone_by_name() -> None:
    settings = {"backbone": "test_resnet", "reduction": 8, "fusion_heads": 4, "fusion_mlp_width": 64}
    system = build(RegionRelationConfig(**settings), INPUT).eval()
    assert system.encoder(torch.randn(2, 3, 32, 32)).shape == (2, 12)


@pytest.mark.parametrize("row", ROWS)
def test_mixed_precision_stays_close(row: str) -> None:
    encoder = make(**ROWS[row][0]).encoder.eval()
    frames = torch.randn(3, 3, 32, 32)
    logits = encoder(frames)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = encoder(frames).float()
    assert not torch.equal(rough, logits)
    if encoder.config.arl:  # a face may change a neighbor where two are nearly as alike: compare the middle one
        assert (rough - logits).abs().median() < 0.1
    else:
        torch.testing.assert_close(rough, logits, atol=0.1, rtol=0.1)
