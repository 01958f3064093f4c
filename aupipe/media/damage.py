"""Evidence that a file lacks frames: its index, its stated duration, the log of FFmpeg, and bytes that are not read."""

from __future__ import annotations

import re
from collections import Counter, deque

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from aupipe.media import gif_blocks
from aupipe.media.byte_source import opened
from aupipe.media.clock import PacketClock
from aupipe.media.container import format_names
from aupipe.media.ffmpeg_log import FFmpegLog
from aupipe.media.image_files import IMAGE_FORMATS

_ROUNDING_S = 1e-6
_PACK, _SYSTEM_CODES = b"\0\0\1\xba", range(0xBB, 0x100)  # of a program stream: the start of a pack, and of a packet
_PACK_BYTES = 2**17  # more than a pack header and the longest packet
_TS_PACKET_BYTES, _TS_SYNC = (188, 192, 204), 0x47
_FLV_TAGS = {8, 9, 18}  # audio, video, data
_OGG_PAGE_BYTES, _OGG_HEADER_BYTES = 2**17, 27  # more than the longest page; its header without the table of sizes
# In Windows Media: the identifier of the properties, the first bytes with them, and the header of the packets.
_ASF_PROPERTIES, _ASF_HEAD_BYTES, _ASF_DATA_BYTES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"), 2**16, 50
# Formats in which FFmpeg ignores a second file that is appended, and the signature at the start of such a file.
_FIRST_BYTES = {"mov": slice(4, 12), "flv": slice(0, 5), "asf": slice(0, 16), "matroska": slice(0, 16)}
# In a transport stream: the header of a packet that begins a unit, and one more byte; and the start of a unit of video.
_TS_UNIT, _VIDEO_UNIT = re.compile(rb"\x47[\x40-\x7f].([\x10-\x3f])(.)", re.DOTALL), re.compile(rb"\0\0\x01[\xe0-\xef]")
_MOST_CHUNKS = 10_000  # of a file; a crafted one could have any number
_SEARCHED_BYTES = 2**23  # searched after the last packet, because a long video may have an index of some MB there


def missing_frames(
    uri: str, container: InputContainer, stream: VideoStream, total: int, clock: PacketClock
) -> tuple[int, str]:
    """Return the number of frames in the file's index after the last packet, and a remark.

    The number of frames in AVI's header is used only if the file is shorter than its RIFF chunks.

    Args:
        total: number of packets, plus frames that the index lists between them.
    """
    formats = format_names(container)
    if "mov" in formats:
        # FFmpeg's index lacks the frames that an edit list cuts away; the number of frames in the header has them.
        return max(0, sum(entry.size > 0 for entry in stream.index_entries) - total), ""
    if "avi" not in formats:
        return 0, ""
    beyond = max(0, stream.frames - total - clock.listed)
    if not beyond or _riff_is_whole(uri):
        remark = f"its header counts {stream.frames} frames, its index {total + clock.listed}" if beyond else ""
        return clock.listed, remark
    return clock.listed + beyond, ""


def _riff_is_whole(uri: str) -> bool:
    """Return whether the file contains all of its RIFF chunks. A file of more than 1 GB has several (OpenDML)."""
    with opened(uri) as file:
        size, end = file.seek(0, 2), 0
        for _ in range(_MOST_CHUNKS):
            file.seek(end)
            head = file.read(8)
            if not head.startswith(b"RIFF"):
                break
            end += 8 + int.from_bytes(head[4:], "little")
        return end <= size


def damage_of(
    uri: str, log: FFmpegLog, container: InputContainer, joined: set[int], gap: bool, last: int
) -> tuple[str, str]:
    """Return the evidence of damage, and the log of FFmpeg if there is no evidence of a loss.

    A log message of a demuxer is evidence only if there is a gap between frames, or if it reports a truncated file. A
    packet that the demuxer flags as corrupt is evidence, except where streams were joined.

    Args:
        last: place of the last packet in the file.
    """
    text = log.messages[0][1] if log.messages else ""
    if any(number not in joined for number in log.corrupt_packets):
        return text or "a packet is corrupt", ""
    if log.ends_early:
        return log.ends_early, ""
    formats = format_names(container)
    if ("mpegts" in formats and _ends_within_packet(uri)) or ("mpeg" in formats and _ends_within_pes_packet(uri)):
        return "it ends within a packet", ""
    if "flv" in formats and _ends_within_flv_tag(uri, last):
        return "it ends within a packet", ""
    if "ogg" in formats and _ends_within_ogg_page(uri):
        return "it ends within a page", ""
    if "asf" in formats and _lacks_asf_packets(uri):
        return "it is shorter than its header states", ""
    if "gif" in formats and not _gif_is_whole(uri):
        return "its blocks do not end with a trailer", ""
    return (text, "") if gap else ("", text)


def loss_if_corrupt(formats: frozenset[str]) -> str:
    """Return the loss, as a reason, for which a corrupt frame would be the missing evidence; "" if there is none.

    The packets of a program stream have no numbers, and its demuxer skips damaged ones without a message. Gaps in time
    are no better evidence: few packets have a time, and FFmpeg supplies the others.
    """
    if formats & IMAGE_FORMATS:
        return "truncated: an image ends before its end marker"
    if "mpeg" in formats:
        return "container_damaged: frames may be missing (a frame is corrupt, and packets have no numbers)"
    return ""


def _gif_is_whole(uri: str) -> bool:
    """Return whether the blocks of a GIF end with the trailer. Bytes after it are no damage.

    FFmpeg fills what is missing of a picture, and stops at bytes that begin no block, both without a message of the
    demuxer.
    """
    with opened(uri, whole=True) as file:
        gif_blocks.skip_header(file)
        return deque(gif_blocks.blocks(file), maxlen=1) == deque([gif_blocks.TRAILER])


def _tail(uri: str, length: int) -> bytes:
    """Return the last `length` bytes of a file, or all if it has fewer."""
    with opened(uri) as file:
        file.seek(max(0, file.seek(0, 2) - length))
        return file.read()


def _ends_within_packet(uri: str) -> bool:
    """Return whether the last packet of a transport stream is incomplete. Bytes before or after a stream are none."""
    tail = _tail(uri, 3 * max(_TS_PACKET_BYTES))
    starts = [place for place in range(len(tail) - min(_TS_PACKET_BYTES) + 1, len(tail)) if tail[place] == _TS_SYNC]
    return any(
        place >= 2 * length and tail[place - length] == tail[place - 2 * length] == _TS_SYNC
        for place in starts
        for length in _TS_PACKET_BYTES
    )


def _ends_within_pes_packet(uri: str) -> bool:
    """Return whether the last packet of a program stream is incomplete. Other bytes after the stream are no packet."""
    tail = _tail(uri, _PACK_BYTES)
    place = tail.rfind(_PACK)
    if place < 0 or len(tail) < place + 14:
        return place >= 0
    place += 14 + (tail[place + 13] & 7) if tail[place + 4] & 0x40 else 12  # of MPEG-2 and MPEG-1
    while tail[place : place + 3] == _PACK[:3] and place + 6 <= len(tail) and tail[place + 3] in _SYSTEM_CODES:
        place += 6 + int.from_bytes(tail[place + 4 : place + 6], "big")
    return place > len(tail)


def _ends_within_flv_tag(uri: str, last: int) -> bool:
    """Return whether the tags of a Flash video from `last` on end behind the end of the file."""
    with opened(uri) as file:
        file.seek(last)
        tail = file.read(_SEARCHED_BYTES)
    place = 0
    while place < len(tail) < _SEARCHED_BYTES and tail[place] & 31 in _FLV_TAGS:
        place += 11 + int.from_bytes(tail[place + 1 : place + 4], "big") + 4
    return place > len(tail) + 4  # some files lack the size after their last tag


def _ends_within_ogg_page(uri: str) -> bool:
    """Return whether the last page of an Ogg file is incomplete. Other bytes after the stream are no page."""
    tail = _tail(uri, _OGG_PAGE_BYTES)
    page = tail[tail.rfind(b"OggS") :] if b"OggS" in tail else b""
    if len(page) < _OGG_HEADER_BYTES:
        return bool(page)
    table = page[_OGG_HEADER_BYTES : _OGG_HEADER_BYTES + page[26]]  # the sizes of the segments
    return len(page) < _OGG_HEADER_BYTES + page[26] + sum(table)


def _lacks_asf_packets(uri: str) -> bool:
    """Return whether a Windows Media file is too short for the packets that its header counts, all of one size."""
    with opened(uri) as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(_ASF_HEAD_BYTES)
    place = head.find(_ASF_PROPERTIES)
    if place < 0:
        return False
    start, count, flags, packet = (
        int.from_bytes(head[at : at + length], "little")
        for at, length in ((16, 8), (place + 56, 8), (place + 88, 4), (place + 96, 4))
    )
    return not flags & 1 and size < start + _ASF_DATA_BYTES + count * packet  # flag 1: written while it was sent


def joined_part(uri: str, formats: frozenset[str], own: int | None, read_from: int, read_to: int) -> str:
    """Return a message if a file or a track is joined to the one that was read, and is not read; otherwise "".

    Args:
        own: number of the track in the container, if the user has chosen none.
        read_from, read_to: place of its first packet, and of the end of its last one.
    """
    return _joined_file(uri, formats, read_to) or (
        "" if own is None else _joined_track(uri, formats, own, read_from, read_to)
    )


def _joined_file(uri: str, formats: frozenset[str], read_to: int) -> str:
    """Return a message if another file of the same format follows the last packet that was read; otherwise "".

    Bytes 4 to 11 of MP4 and MOV contain the brand, which is equal in two files of one encoder.
    """
    place = next((_FIRST_BYTES[name] for name in formats if name in _FIRST_BYTES), None)
    if place is None:
        return ""
    with opened(uri) as file:
        signature = file.read(16)[place]
        file.seek(read_to)
        if place.start and not signature.startswith(b"ftyp"):  # an old MOV file, which has no signature
            return ""
        found = file.read(_SEARCHED_BYTES).find(signature)
    return (
        f"another file is joined to it at byte {read_to + found - place.start:,}, and is not read" if found >= 0 else ""
    )


def _joined_track(uri: str, formats: frozenset[str], own: int, read_from: int, read_to: int) -> str:
    """Return a message if a transport stream has a video track that ends before this one, or begins after it.

    Recorders and channels have different numbers of tracks (PIDs), so that FFmpeg takes joined ones for several tracks,
    or does not list the second at all.
    """
    if "mpegts" not in formats:
        return ""
    with opened(uri) as file:

        def tracks(start: int, stop: int) -> Counter[int]:
            file.seek(max(0, start))
            return _video_units(file.read(max(0, stop) - max(0, start)))

        for place, step in ((read_from, -_SEARCHED_BYTES), (read_to, _SEARCHED_BYTES)):
            outside = tracks(*sorted((place, place + step)))
            others = {track for track, units in outside.items() if units > 1 and track != own}
            if others and others - set(tracks(*sorted((place, place - step)))):
                return "another video track precedes or follows this one, and is not read"
    return ""


def _video_units(data: bytes) -> Counter[int]:
    """Return the number of units of video that begin in a part of a transport stream, by their PID."""
    found: Counter[int] = Counter()
    for match in _TS_UNIT.finditer(data):
        field = 1 + match[2][0] if match[1][0] & 0x20 else 0  # bytes of the adaptation field
        if _VIDEO_UNIT.match(data, match.end(1) + field):
            found[int.from_bytes(match[0][1:3], "big") & 0x1FFF] += 1
    return found


def missing_s_of(stream: VideoStream, pts: np.ndarray, end: int) -> float:
    """Return the seconds by which the stream ends before its stated end.

    The last frame may last as long as the longest step before it. The stated value is the duration of the stream in
    some files, and the time of its end in others.
    """
    steps = np.diff(pts)
    end = max(end, int(pts[-1] + steps.max(initial=0)))
    tick_s = float(stream.time_base or 1)
    missing_s = _stated_duration_s(stream) - max(end, end - int(pts[0])) * tick_s
    least_s = 0.5 * float(np.median(steps)) * tick_s if len(steps) else 1.0
    return missing_s if missing_s > least_s + _ROUNDING_S else 0.0


def _stated_duration_s(stream: VideoStream) -> float:
    """Return the stated duration of the stream, 0 if there is none. Matroska has it in a tag of the stream."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else 0.0
