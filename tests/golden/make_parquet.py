"""Makes the small Parquet files of tests/golden/data with pyarrow: python3 make_parquet.py [FOLDER]."""
import os, sys
import pyarrow as pa, pyarrow.parquet as pq

out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
os.makedirs(out, exist_ok=True)
chats = [[{"role": "user", "content": "Hi %d" % i}, {"role": "assistant", "content": "Hello %d" % i}] for i in range(3)]
table = pa.table({
    "text": pa.array(["first", None, "Привет", "", "prefix one", "prefix two"], pa.string()),
    "label": pa.array([1, 2, 3, None, 5, 6], pa.int32()),
    "score": pa.array([0.5, None, -2.25, 1e10, 3.0, 4.0], pa.float64()),
    "flag": pa.array([True, False, None, True, True, False], pa.bool_()),
    "list": pa.array([[1, 2], [], None, [3], [None, 4], [5]], pa.list_(pa.int64())),
    "about": pa.array([{"x": 1, "y": "a"}, None, {"x": None, "y": "b"}, {"x": 4, "y": None}, None, {"x": 6, "y": "c"}], pa.struct([("x", pa.int32()), ("y", pa.string())])),
})
delta = {"text": "DELTA_BYTE_ARRAY", "label": "DELTA_BINARY_PACKED", "list.list.element": "DELTA_BINARY_PACKED", "flag": "RLE", "score": "BYTE_STREAM_SPLIT", "about.y": "DELTA_LENGTH_BYTE_ARRAY"}
pq.write_table(table, os.path.join(out, "plain.parquet"), compression="NONE", use_dictionary=False, data_page_version="1.0")
pq.write_table(table, os.path.join(out, "snappy_dictionary.parquet"), compression="SNAPPY", data_page_version="1.0", row_group_size=4)
pq.write_table(table, os.path.join(out, "gzip_v2.parquet"), compression="GZIP", data_page_version="2.0")
pq.write_table(table, os.path.join(out, "zstd_delta.parquet"), compression="ZSTD", data_page_version="2.0", use_dictionary=False, column_encoding=delta)
pq.write_table(table, os.path.join(out, "lz4.parquet"), compression="LZ4", data_page_version="1.0")
times = pa.array([0, 1700000000123456789, None, -1], pa.timestamp("ns"))
pq.write_table(pa.table({"text": ["a", "b", "c", "d"], "time": times}), os.path.join(out, "int96.parquet"), use_deprecated_int96_timestamps=True)
pq.write_table(pa.table({"messages": chats, "id": [7, 8, 9]}), os.path.join(out, "messages.parquet"), compression="SNAPPY")
plain = {"review": pa.array([b"good", "caf\u00e9".encode(), None], pa.binary()), "image": pa.array([b"\x89PNG", b"\xff\xd8", b"a"], pa.binary())}
pq.write_table(pa.table(plain), os.path.join(out, "bytes.parquet"))
