"""Golden bytes for crates/motherlode/src/train/watch.rs: events as TensorBoard writes and reads them.

    pip install tensorboard==2.21.0
    python tests/golden/tensorboard_events.py                 # prints the two records
    python tests/golden/tensorboard_events.py FOLDER          # reads a folder that `train` wrote, scalar by scalar
"""

import io
import sys

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter


def record(event):
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    writer.write(event.SerializeToString(deterministic=True))
    writer.flush()
    return buffer.getvalue().hex()


if len(sys.argv) > 1:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(sys.argv[1])
    accumulator.Reload()
    for tag in accumulator.Tags()["scalars"]:
        scalars = accumulator.Scalars(tag)
        print(tag, len(scalars), "first", scalars[0].step, scalars[0].value, "last", scalars[-1].step, scalars[-1].value)
else:
    print(record(event_pb2.Event(wall_time=1.5, file_version="brain.Event:2")))
    values = [("train/loss", 0.5), ("ω", -2.0)]
    summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, simple_value=value) for tag, value in values])
    print(record(event_pb2.Event(wall_time=2.25, step=300, summary=summary)))
