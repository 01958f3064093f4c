import shutil

import pytest

from aupipe.affwild2.layout import read_layout, split_person
from aupipe.errors import DatasetError

pytestmark = pytest.mark.unit


def test_an_edition_is_told_by_its_folders(tree):
    layout = read_layout(str(tree.root))
    assert layout.edition == tree.edition
    assert [track.name for track in layout.tracks] == [
        "10-30-1280x720", "a_left_b_left", "a_left_b_right", "v2", "video9",
    ]  # fmt: skip
    first, left, right, v2, video9 = layout.tracks
    assert first.video == "batch1/10-30-1280x720.mp4"
    assert {task: annotation.split for task, annotation in first.annotations.items()} == {
        "au": "train",
        "expr": "train",
    }
    assert (left.video_id, left.person, right.person) == ("a_left_b", "left", "right")
    assert left.video == right.video == "batch2/a_left_b.avi"
    assert video9.crops == ("cropped_aligned/video9", "cropped_aligned_new_50_vids/video9")
    assert v2.video is None
    assert layout.unannotated == ("test-video",)
    assert layout.test_lists == ("test_set_AU_Challenge.txt",)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a_left", ("a", "left")), ("a_left_b", ("a_left_b", "")), ("_right", ("_right", "")), ("x", ("x", ""))],
)
def test_only_an_ending_names_a_person(name, expected):
    assert split_person(name) == expected


def test_two_editions_in_one_folder_need_a_choice(tree):
    other = "AU_Set" if tree.edition != "abaw2" else "AU_Detection_Challenge"
    shutil.copytree(tree.folders["au"], tree.root / "more" / other)
    with pytest.raises(DatasetError, match=r"two editions.*--set data\.edition="):
        read_layout(str(tree.root))
    assert read_layout(str(tree.root), tree.edition).edition == tree.edition


def test_a_video_in_both_splits_is_named_with_both_files(tree):
    tree.annotate("au", "validation", "a_left_b_left", [])
    with pytest.raises(DatasetError, match=r"a_left_b_left is in two splits: .*Train_Set.* and .*Validation_Set"):
        read_layout(str(tree.root))


def test_an_empty_split_is_named(tree):
    for task in ("au", "expr"):
        shutil.rmtree(tree.folders[task] / "Validation_Set")
    with pytest.raises(DatasetError, match="the validation split is empty; put annotation files into Validation_Set"):
        read_layout(str(tree.root))


def test_a_pack_may_lie_one_folder_deeper_than_meant(tree):
    (tree.root / "cropped_aligned").rename(tree.root / "inner")
    (tree.root / "packs" / "cropped_aligned").mkdir(parents=True)
    (tree.root / "inner").rename(tree.root / "packs" / "cropped_aligned" / "cropped_aligned")
    track = read_layout(str(tree.root)).tracks[0]
    assert track.crops == ("packs/cropped_aligned/cropped_aligned/10-30-1280x720",)


def test_another_folder_is_no_data_set(tmp_path):
    with pytest.raises(DatasetError, match="is no Aff-Wild2 folder"):
        read_layout(str(tmp_path))
    with pytest.raises(DatasetError, match="no such folder"):
        read_layout(str(tmp_path / "none"))
