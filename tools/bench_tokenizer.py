"""Ids and speed of build/bench/bench_tokenizer beside the `tokenizers` library on one core, in turn within one run.

    python3 tools/bench_tokenizer.py --bench build/bench/bench_tokenizer --tokenizer tokenizer.json --text FILE [--rounds 3] [--limit BYTES]

FILE is any UTF-8 text. Both get it line by line; the library's batches of lines go through encode_batch_fast with one thread. Ids are compared by a
digest of all of them. Prints one JSON line; exits 1 where the ids differ."""
import argparse, json, os, statistics, subprocess, sys, tempfile, time
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
from tokenizers import Tokenizer

def fnv(ids, h):
    for b in b"".join(i.to_bytes(4, "little") for i in ids): h = (h ^ b) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h

def peer(tokenizer, lines, digest):
    """Seconds of encoding, tokens, and their digest where it is asked for."""
    seconds, tokens, h = 0.0, 0, 0xCBF29CE484222325
    for at in range(0, len(lines), 2000):
        batch = lines[at:at + 2000]
        begin = time.perf_counter()
        encodings = tokenizer.encode_batch_fast(batch)
        seconds += time.perf_counter() - begin
        for e in encodings:
            ids = e.ids
            tokens += len(ids)
            if digest: h = fnv(ids, h)
    return seconds, tokens, h

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--bench", default="build/bench/bench_tokenizer"); ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--text", required=True); ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--limit", type=int, default=0); ap.add_argument("--no-ids", action="store_true", help="speed alone")
    a = ap.parse_args()
    raw = open(a.text, "rb").read()
    if a.limit and len(raw) > a.limit: raw = raw[:raw.rindex(b"\n", 0, a.limit) + 1]
    lines = raw.decode("utf-8").split("\n")
    lines = [l + "\n" for l in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    begin = time.perf_counter(); tokenizer = Tokenizer.from_file(a.tokenizer); load = time.perf_counter() - begin
    ours, theirs, same = [], [], True
    with tempfile.NamedTemporaryFile(suffix=".txt") as f:
        f.write(raw); f.flush()
        for i in range(a.rounds):
            out = json.loads(subprocess.run([a.bench, a.tokenizer, f.name], check=True, capture_output=True, text=True).stdout)
            seconds, tokens, h = peer(tokenizer, lines, i == 0 and not a.no_ids)
            if i == 0: same = tokens == out["tokens"] and (a.no_ids or "%016x" % h == out["fnv1a64"])
            ours.append(out["seconds"]); theirs.append(seconds)
    mb = len(raw) * 1e-6
    print(json.dumps({"tokenizer": os.path.basename(a.tokenizer), "mb": round(mb, 1), "tokens": tokens, "ids_equal": None if a.no_ids else same,
        "mb_per_s": round(mb / statistics.median(ours), 2), "peer_mb_per_s": round(mb / statistics.median(theirs), 2),
        "ratio": round(statistics.median(theirs) / statistics.median(ours), 2), "load_ms": out["load_ms"], "peer_load_ms": round(load * 1e3, 1)}))
    return 0 if same else 1

if __name__ == "__main__": sys.exit(main())
