import pytest

from aupipe.errors import ConfigError
from aupipe.facestore.read import FaceStore
from aupipe.training import recipe, task_data
from aupipe.training.learner import Learner, build_learner

pytestmark = pytest.mark.unit


def learner_of(name: str, stage: str, overrides: list[str], index: FaceStore) -> Learner:
    plan = recipe.read(name, quick=True, overrides=overrides)
    return build_learner(plan, stage, task_data.task_data(plan, stage, index), None)[0]


def test_a_system_cut_after_its_logits_trains_one_task_per_stage(index: FaceStore) -> None:
    both = ["stages.aus.tasks.expr.loss.kind=cross_entropy", "stages.aus.model.outputs=[au, expr]"]
    with pytest.raises(ConfigError, match="expression_transfer is cut after its logits"):
        learner_of("expression_transfer", "aus", both, index)


def test_an_output_that_no_task_trains_is_refused(index: FaceStore) -> None:
    alone = ["stages.visual.tasks.expr=null", "stages.visual.batch=8"]
    with pytest.raises(ConfigError, match=r"no task trains the output expr.*outputs=\[au\]"):
        learner_of("multimodal", "visual", alone, index)
    learner_of("multimodal", "visual", [*alone, "stages.visual.model.outputs=[au]"], index)
