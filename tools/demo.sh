#!/bin/sh
# The main job on text that this machine already has: a tokenizer, a small model, a sample, a LoRA graft, and a table of what each step gained.
# CAMBIUM: the command; DEMO_SECONDS: seconds of pretraining (180), a third of it goes to the graft; DEMO_DIR: where everything lands.
set -eu
cambium=${CAMBIUM:-build/cambium}
seconds=${DEMO_SECONDS:-180}
dir=${DEMO_DIR:-build/demo}
begin=$(date +%s)

say() { printf '\n== %s\n' "$*"; }
# One number of a JSON object on standard input.
number() { sed -n "s/.*\"$1\": *\([-0-9.e+]*\).*/\1/p"; }
# Copies text files, named by NAME... patterns under a folder, up to a number of bytes, one after the other: gather OUT LIMIT FILE-LIST
gather() {
    out=$1 limit=$2 total=0
    : > "$out"
    while read -r file && [ "$total" -lt "$limit" ]; do
        [ -r "$file" ] || continue
        if ! iconv -f UTF-8 -t UTF-8 "$file" > "$dir/piece" 2>/dev/null || [ ! -s "$dir/piece" ]; then continue; fi
        cat "$dir/piece" >> "$out"
        printf '\n<|endoftext|>\n' >> "$out"
        total=$((total + $(wc -c < "$dir/piece")))
    done
    rm -f "$dir/piece"
}

rm -rf "$dir"
mkdir -p "$dir"

say "text of this machine: C headers to learn from, licences and copyright notices for the graft"
find /usr/include -name '*.h' -type f 2>/dev/null | LC_ALL=C sort > "$dir/headers"
# every 20th header is for validation
awk 'NR % 20 == 10' "$dir/headers" | gather "$dir/headers-valid.txt" 200000
awk 'NR % 20 != 10' "$dir/headers" | gather "$dir/headers.txt" 6000000
find /usr/share/common-licenses /usr/share/doc -type f \( -path '*common-licenses*' -o -name copyright \) 2>/dev/null | LC_ALL=C sort > "$dir/licences"
awk 'NR % 10 == 5' "$dir/licences" | gather "$dir/licences-valid.txt" 100000
awk 'NR % 10 != 5' "$dir/licences" | gather "$dir/licences.txt" 2000000
wc -c "$dir"/*.txt
if [ "$(wc -c < "$dir/headers.txt")" -lt 100000 ] || [ "$(wc -c < "$dir/licences.txt")" -lt 20000 ]; then
    echo "demo: too little text under /usr/include and /usr/share/doc; 'apt-get install libc6-dev' brings some" >&2
    exit 1
fi

say "a tokenizer of 2048 pieces"
"$cambium" tokenizer train "$dir/headers.txt" "$dir/licences.txt" --vocab 2048 --out "$dir/tokenizer"

say "a model of about 2.5 million parameters"
"$cambium" init --family gpt2 --set n_layer=4,n_head=4,n_embd=192,n_positions=256 --tokenizer "$dir/tokenizer" --out "$dir/fresh"

# how many steps fit into the time, by a short measurement
batch=8 seq=256
speed=$("$cambium" bench train "$dir/fresh" --batch $batch --seq $seq --steps 6 --json --quiet | number tokens_per_s)
steps=$(awk "BEGIN { s = int($seconds * $speed / ($batch * $seq) * 0.9); print s < 20 ? 20 : s }")
graft=$(awk "BEGIN { s = int($steps / 3); print s < 10 ? 10 : s }")

say "pretraining: $steps steps at $speed tokens a second"
"$cambium" pretrain "$dir/fresh" --text "$dir/headers.txt" --valid "$dir/headers-valid.txt" --out "$dir/base" --steps "$steps" --batch $batch --seq $seq \
    --lr 2e-3 --eval-every $((steps / 3 + 1))

say "what it writes"
"$cambium" generate "$dir/base" --prompt '/* Return the number of' --max-new 80 --temperature 0.8 --top-k 40 --seed 1

say "the graft: LoRA on licences, the base stays as it is"
"$cambium" finetune "$dir/base" --tuner lora:r=8,alpha=16 --data "$dir/licences.txt" --valid "$dir/licences-valid.txt" --out "$dir/graft" --steps "$graft" \
    --batch $batch --seq $seq --lr 2e-3

say "what the grafted model writes"
"$cambium" generate "$dir/base" --modules "$dir/graft" --prompt 'Permission is' --max-new 80 --temperature 0.8 --top-k 40 --seed 1

bits() { "$cambium" eval "$@" --json --quiet | number bits_per_byte; }
say "bits per byte on text that no training saw (less is better)"
printf '%-28s %10s %10s\n' '' headers licences
for row in "before|$dir/fresh" "after pretraining|$dir/base" "with the graft|$dir/base|$dir/graft"; do
    name=${row%%|*} rest=${row#*|}
    model=${rest%%|*} graft_dir=${rest#"$model"}
    if [ -n "$graft_dir" ]; then set -- "$model" --modules "${graft_dir#|}"; else set -- "$model"; fi
    printf '%-28s %10.3f %10.3f\n' "$name" "$(bits "$@" --text "$dir/headers-valid.txt")" "$(bits "$@" --text "$dir/licences-valid.txt")"
done

cat <<END

Took $(($(date +%s) - begin)) seconds. Curves: $dir/base/run/report.html and $dir/graft/run/report.html.
The same on text of your own (files or folders; .txt, .jsonl, also .gz and .zst):
  $cambium tokenizer train MY_TEXT --vocab 8192 --out tok
  $cambium init --family gpt2 --set n_layer=6,n_head=6,n_embd=384,n_positions=512 --tokenizer tok --out fresh
  $cambium pretrain fresh --text MY_TEXT --out base --epochs 1 --eval-every 200
  $cambium finetune base --tuner lora:r=8,alpha=16 --data OTHER_TEXT --out graft --epochs 3
  $cambium generate base --modules graft --prompt "Once" --max-new 100
END
