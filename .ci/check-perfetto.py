#!/usr/bin/env python3
"""Whether Perfetto's own software reads a trace as it was meant.

Usage: check-perfetto.py FILE SWITCHES

Wants the package `perfetto` (pip install perfetto); without it, nothing is checked. The file is decoded with the
official schema, in which no field may be unknown, and, if the program `trace_processor_shell` can be had, loaded into
it: that which the environment variable `TRACE_PROCESSOR` names, or the one on PATH; else the package downloads it.
Either way the slices on the workers' tracks must be as many as the switches.
"""

import collections
import os
import shutil
import sys

try:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent
    from google.protobuf.unknown_fields import UnknownFieldSet
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(0)


def unknown(message):
    """Number of fields, at any depth, that the schema does not know."""
    count = len(UnknownFieldSet(message))
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        repeated = not hasattr(value, "ListFields")
        count += sum(map(unknown, value)) if repeated else unknown(value)
    return count


def by_schema(path):
    """Slices begun on workers' tracks, and slices that are still open at the end."""
    trace = Trace()
    with open(path, "rb") as file:
        trace.ParseFromString(file.read())
    assert unknown(trace) == 0, "fields that the official schema does not know"
    tracks, depth, begun, arrows = {}, collections.Counter(), 0, collections.Counter()
    last = 0
    for packet in trace.packet:
        if packet.HasField("track_descriptor"):
            tracks[packet.track_descriptor.uuid] = packet.track_descriptor
        if not packet.HasField("track_event"):
            continue
        assert packet.timestamp >= last, "packets out of order"
        last = packet.timestamp
        event = packet.track_event
        track = tracks[event.track_uuid]
        arrows.update(event.flow_ids)
        arrows.update(event.terminating_flow_ids)
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            depth[track.uuid] += 1
            assert depth[track.uuid] == 1, f"overlapping slices on {track.name}"
            begun += track.name.startswith("worker ") and event.name != "asleep"
        elif event.type == TrackEvent.TYPE_SLICE_END:
            depth[track.uuid] -= 1
            assert depth[track.uuid] == 0, f"an end without a beginning on {track.name}"
    loose = sum(ends == 1 for ends in arrows.values())
    print(f"schema: {len(tracks)} tracks, {begun} turns, {len(arrows)} arrows ({loose} lead nowhere)")
    return begun


def by_trace_processor(path):
    binary = os.environ.get("TRACE_PROCESSOR") or shutil.which("trace_processor_shell")
    try:
        from perfetto.trace_processor import TraceProcessor, TraceProcessorConfig

        processor = TraceProcessor(trace=path, config=TraceProcessorConfig(bin_path=binary))
    except Exception as e:
        if binary:
            raise
        # It is downloaded; there are many ways for that to fail.
        print(f"trace_processor skipped: {type(e).__name__}")
        return None
    turns = next(iter(processor.query(
        "select count(*) as n from slice join track on slice.track_id = track.id "
        "where track.name glob 'worker *' and slice.name != 'asleep' and slice.dur != 0"
    ))).n
    errors = next(iter(processor.query(
        "select coalesce(sum(value), 0) as n from stats where severity in ('error', 'data_loss')"
    ))).n
    assert errors == 0, f"trace_processor reports {errors} errors"
    print(f"trace_processor: {turns} turns")
    return turns


path, switches = sys.argv[1], int(sys.argv[2])
for turns in (by_schema(path), by_trace_processor(path)):
    assert turns in (None, switches), f"{turns} turns, but {switches} switches"
