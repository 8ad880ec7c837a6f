#!/bin/sh
# Kills a training run at random moments while it saves at every step; each time the next run must go on from a whole checkpoint, never backwards.
# Environment: CAMBIUM (the command), CRASH_RUNS (200).
set -u
: "${CAMBIUM:=build/cambium}" "${CRASH_RUNS:=200}"
dir=$(mktemp -d)
pid=''
trap '[ -n "$pid" ] && kill -9 "$pid" 2>/dev/null; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
fail() {
    echo "crash_save: $1"
    tail -n 20 "$dir/log"
    exit 1
}
: >"$dir/log"

# A small model and a text to learn.
i=0
while [ $i -lt 400 ]; do
    echo "line $i of a text that goes on: $((i * 7919 % 1000)) and $((i * 104729 % 997))."
    i=$((i + 1))
done >"$dir/text.txt"
"$CAMBIUM" tokenizer train "$dir/text.txt" --kind bpe --vocab 300 --out "$dir/tokenizer" >>"$dir/log" 2>&1 || fail "no tokenizer"
"$CAMBIUM" init --out "$dir/model" --family gpt2 --set n_embd=16,n_layer=1,n_head=2,n_positions=32 --tokenizer "$dir/tokenizer" >>"$dir/log" 2>&1 ||
    fail "no model"

# train STEPS: one run of the loop that is being killed.
train() {
    "$CAMBIUM" pretrain "$dir/model" --text "$dir/text.txt" --out "$dir/out" --resume --steps "$1" --batch 2 --seq 16 --schedule constant \
        --save-every 1 --keep 2 --threads 1 --quiet
}
# The last step of metrics.jsonl whose line is whole.
last_step() {
    sed -n 's/^{"step":\([0-9]*\),.*}$/\1/p' "$dir/out/run/metrics.jsonl" 2>/dev/null | tail -n 1
}

run=0
steps=0
seed=$$
while [ $run -lt "$CRASH_RUNS" ]; do
    run=$((run + 1))
    # exec: the shell's child is the command itself
    (exec "$CAMBIUM" pretrain "$dir/model" --text "$dir/text.txt" --out "$dir/out" --resume --steps 1000000 --batch 2 --seq 16 --schedule constant \
        --save-every 1 --keep 2 --threads 1 --quiet >>"$dir/log" 2>&1) &
    pid=$!
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    sleep "0.$(printf '%03d' $((seed / 65536 % 300 + 20)))"
    kill -9 "$pid" 2>/dev/null || fail "run $run ended by itself"
    wait "$pid" 2>/dev/null
    pid=''
    # every checkpoint that has its final name is whole: --check compares every checksum in it
    for file in "$dir"/out/run/ckpt-*.safetensors; do
        [ -e "$file" ] || continue
        "$CAMBIUM" inspect "$file" --check >>"$dir/log" 2>&1 || fail "run $run: $file is damaged"
    done
    if [ -e "$dir/out/run/best.safetensors" ]; then
        "$CAMBIUM" inspect "$dir/out/run/best.safetensors" --check >>"$dir/log" 2>&1 || fail "run $run: the best result is damaged"
    fi
    newest=$(find "$dir/out/run" -name 'ckpt-*.safetensors' 2>/dev/null | sed 's/.*ckpt-0*\([0-9]*\)\.safetensors/\1/' | sort -n | tail -n 1)
    newest=${newest:-0}
    [ "$newest" -ge "$steps" ] || fail "run $run: step $newest after step $steps"
    steps=$newest
done

# The check itself: a checkpoint with one byte changed is refused.
cp "$dir/out/run/ckpt-$(printf '%010d' "$steps").safetensors" "$dir/ckpt-changed.safetensors" || fail "no checkpoint to change"
size=$(wc -c <"$dir/ckpt-changed.safetensors")
byte=$(tail -c 9 "$dir/ckpt-changed.safetensors" | head -c 1 | od -An -tu1)
printf '%b' "\\0$(printf '%03o' $((byte ^ 1)))" | dd of="$dir/ckpt-changed.safetensors" bs=1 seek=$((size - 9)) conv=notrunc 2>/dev/null
"$CAMBIUM" inspect "$dir/ckpt-changed.safetensors" --check >/dev/null 2>&1 && fail "a changed checkpoint passes the check"

# The newest checkpoint loads: one step more, and not a line of the metrics missing or twice.
train $((steps + 1)) >>"$dir/log" 2>&1 || fail "the run does not go on from step $steps"
grep -q 'checksum\|not a checkpoint' "$dir/log" && fail "a checkpoint was passed over"
[ -z "$(find "$dir/out" -name '.cambium-*.tmp')" ] || fail "files of killed writers are left"
[ "$(last_step)" -eq $((steps + 1)) ] || fail "the last line is of step $(last_step), wanted $((steps + 1))"
lines=$(wc -l <"$dir/out/run/metrics.jsonl")
[ "$lines" -eq $((steps + 1)) ] || fail "$lines lines of metrics for $((steps + 1)) steps"
echo "crash_save: $CRASH_RUNS runs killed, $steps steps kept, nothing lost"
