import shutil

import pytest

from aupipe.affwild2.layout import frame_of_crop, read_layout, split_person
from aupipe.errors import DatasetError

pytestmark = pytest.mark.unit


def test_an_edition_is_recognized_by_its_folders(tree):
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
    assert [(track.name, track.crops) for track in layout.tests] == [("test-video", ("cropped_aligned/test-video",))]
    assert layout.test_lists == ("test_set_AU_Challenge.txt",)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a_left", ("a", "left")), ("a_left_b", ("a_left_b", "")), ("_right", ("_right", "")), ("x", ("x", ""))],
)
def test_only_a_suffix_names_a_person(name, expected):
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


def test_a_pack_may_be_one_folder_deeper(tree):
    (tree.root / "cropped_aligned").rename(tree.root / "inner")
    (tree.root / "packs" / "cropped_aligned").mkdir(parents=True)
    (tree.root / "inner").rename(tree.root / "packs" / "cropped_aligned" / "cropped_aligned")
    track = read_layout(str(tree.root)).tracks[0]
    assert track.crops == ("packs/cropped_aligned/cropped_aligned/10-30-1280x720",)


def test_packs_may_be_nested_as_the_archives_are(tree):
    (tree.root / "cropped_aligned_image_test/batch1 (1)/cropped_aligned").mkdir(parents=True)
    (tree.root / "cropped_aligned_images/batch1").mkdir(parents=True)
    crops = tree.root / "cropped_aligned"
    (crops / "test-video").rename(tree.root / "cropped_aligned_image_test/batch1 (1)/cropped_aligned/test-video")
    crops.rename(tree.root / "cropped_aligned_images/batch1/cropped_aligned")
    layout = read_layout(str(tree.root))
    assert layout.tracks[0].crops == ("cropped_aligned_images/batch1/cropped_aligned/10-30-1280x720",)
    inner = "cropped_aligned_image_test/batch1 (1)/cropped_aligned/test-video"
    assert [(track.name, track.crops) for track in layout.tests] == [("test-video", (inner,))]


def test_test_tracks_without_a_list_have_neither_annotation_nor_an_annotated_person(tree):
    (tree.root / "test_set_AU_Challenge.txt").unlink()
    for name in ("x_left", "x_right"):
        tree.crop(name, [1])
    for name in ("x", "y"):
        (tree.root / f"batch1/{name}.mp4").touch()
    tests = read_layout(str(tree.root)).tests
    assert [(track.name, track.video) for track in tests] == [
        ("test-video", None), ("x_left", "batch1/x.mp4"), ("x_right", "batch1/x.mp4"), ("y", "batch1/y.mp4"),
    ]  # fmt: skip


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="is not an Aff-Wild2 folder"):
        read_layout(str(tmp_path))
    with pytest.raises(DatasetError, match="no such folder"):
        read_layout(str(tmp_path / "none"))


def test_suffixes_and_folders_may_be_in_any_case_and_system_files_are_ignored(tree):
    before = read_layout(str(tree.root))
    for task in ("au", "expr"):
        for split in ("Train_Set", "Validation_Set"):
            folder = tree.folders[task] / split
            for path in list(folder.glob("*.txt")):
                (folder / f"._{path.name}").write_bytes(b"\0\5")
                path.rename(path.with_suffix(".TXT"))
            (folder / "Thumbs.db").touch()
            (folder / "@eaDir").mkdir()
        tree.folders[task].rename(tree.folders[task].with_name(tree.folders[task].name.upper()))
    (tree.root / "batch1/10-30-1280x720.mp4").rename(tree.root / "batch1/10-30-1280x720.MP4")
    (tree.root / "cropped_aligned").rename(tree.root / "Cropped_Aligned")
    (tree.root / "Cropped_Aligned/@eaDir").mkdir()
    (tree.root / "#recycle/batch1").mkdir(parents=True)
    (tree.root / "#recycle/batch1/10-30-1280x720.mp4").touch()
    after = read_layout(str(tree.root))
    assert [track.name for track in after.tracks] == [track.name for track in before.tracks]
    assert after.tracks[0].video == "batch1/10-30-1280x720.MP4"
    assert after.tracks[0].crops == ("Cropped_Aligned/10-30-1280x720",)
    assert [track.name for track in after.tests] == [track.name for track in before.tests]
    assert after.ambiguous == ()
    path = after.tracks[0].annotations["au"].name
    shutil.copy(tree.root / path, tree.root / path.replace(".TXT", ".txt"))
    with pytest.raises(DatasetError, match=r"10-30-1280x720 is annotated twice: .*\.TXT and .*\.txt"):
        read_layout(str(tree.root))


def test_crops_are_named_by_their_frame():
    names = ("00007.jpg", "7.JPG", "00007.png", "00007.PNG", "00007.Jpeg")
    assert {frame_of_crop(name) for name in names} == {7}
    others = ("._00007.jpg", "thumb.jpg", "00007", "00007.txt", "٧.jpg", "00007.jpg.tmp", f"{10**19}.jpg")
    assert {frame_of_crop(name) for name in others} == {None}
