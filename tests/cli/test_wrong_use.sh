#!/bin/sh
# The command used wrongly: the exit status, one line on standard error that names the fault, nothing on standard output, nothing left behind.
set -eu
# shellcheck source=tests/cli/common.sh
. "$(dirname "$0")/common.sh"

# wrong STATUS WORDS ARGUMENT...: the call ends with STATUS and a line that has WORDS; `x` is what it was to write
wrong() {
    status=$1 words=$2 got=0
    shift 2
    "$cambium" "$@" >out 2>err </dev/null || got=$?
    [ "$got" = "$status" ] || say "cambium $*: exit status $got, wanted $status"
    if [ "$(grep -c '^cambium: ' err)" != 1 ] || ! grep -qF -- "$words" err; then say "cambium $*: wanted one line with '$words', found: $(cat err)"; fi
    [ ! -s out ] || say "cambium $*: something on standard output"
    [ ! -e x ] || say "cambium $*: left $(find x | tr '\n' ' ')"
    rm -rf x
}
: >empty
printf 'a,b\nc,d\n' >t.csv
printf 'good \377\376 bad' >bad
printf 'ab' >short
head -c 40 text | gzip | head -c 20 >cut.gz
right init --family gpt2 --set n_embd=16,n_layer=1,n_head=2,n_positions=64 --tokenizer tok --out m
right init --family gpt2 --set n_embd=16,n_layer=1,n_head=2,vocab_size=20 --out small
cp tok/tokenizer.json small
cp -r m cut && head -c 100 m/model.safetensors >cut/model.safetensors
train() { # STATUS WORDS OPTION...
    status=$1 words=$2
    shift 2
    wrong "$status" "$words" pretrain m --out x --text text --steps 2 --batch 2 --seq 16 --quiet "$@"
}

# ---- verbs and options
wrong 2 "did you mean 'pretrain'" pretrian
wrong 2 'did you mean --steps' pretrain m --stesp 3
wrong 2 '--out DIR is missing' pretrain m --text text
wrong 2 'found no value' pretrain m --text
train 2 '--out: found an empty name' --out ''
train 1 '--device null: runs nothing' --device null
wrong 1 '--device null: runs nothing' eval m --text text --device null
wrong 1 '--device null: runs nothing' merge --connect m m --text text --device null
wrong 1 '--device null: runs nothing' merge --method fisher m m --text text --out x --device null
right plan pretrain m --text text --batch 2 --seq 16 --device null
wrong 2 "no plan for 'eval'" plan eval m --text text
for option in batch seq steps accumulate keep; do train 2 "--$option 0: wanted 1 or more" --$option 0; done
train 2 '--lr 0: wanted a number above 0' --lr 0
train 2 '--min-lr -1: wanted 0 (none) or more' --min-lr -1
train 2 '--min-lr 0.1: above --lr 0.01' --lr 0.01 --min-lr 0.1
train 2 '--warmup -1: wanted 0 (none) or more' --warmup -1
train 2 '--weight-decay -0.1: wanted 0 (none) or more' --weight-decay -0.1
train 2 "schedule 'up'" --schedule up
train 2 "no option 'beta9'" --optimizer adamw:beta9=1
train 2 '--valid-share 2' --valid-share 2
train 2 'wanted --eval-every' --patience 2
train 2 "no op 'nothing'" --kernel nothing=ref
train 2 '--memory -1' --memory -1
train 1 '--seq 65: the model has 64 positions' --seq 65
echo '{"resume": 1}' >c.json && train 2 'c.json: --resume' --config c.json
echo '{"stepz": 1}' >c.json && train 2 "c.json: 'stepz' is no option" --config c.json
train 1 'missing.json: cannot be read' --config missing.json
wrong 2 'wanted one of them' generate m --prompt a --ids 1
wrong 2 '--temperature 0' generate m --prompt a --temperature 0
wrong 2 '--top-p 5' generate m --prompt a --top-p 5
wrong 1 'id 300 at position 1' generate m --ids 1,300
wrong 2 "--ids 'x'" tokenizer decode tok --ids x
wrong 1 'id 300000 at position 0' tokenizer decode tok --ids 300000

# ---- files
wrong 1 'missing: No such file' pretrain m --text missing --out x --steps 1 --seq 16
wrong 1 'text: found a file that is no model; wanted a model' generate text --prompt a
wrong 1 'missing: no such file or folder' pretrain missing --text text --out x
wrong 1 'empty: found no text' pretrain m --text empty --out x --steps 1 --seq 16
wrong 1 'byte 0xff at offset 5' pretrain m --text bad --out x --steps 1 --seq 16
printf '[]' >none && wrong 1 'none: found a list of 0' generate m --messages none --chat-template chatml
printf '[{]' >none && wrong 1 'none: JSON line 1' generate m --messages none --chat-template chatml
wrong 2 '--quote ab: wanted one character or none' finetune m --data t.csv --quote ab --tuner full --out x --steps 1 --seq 16
wrong 1 't.csv: line 1: --column text=z: there is no column of this name; found "a", "b"' finetune m --data t.csv --column text=z --tuner full --out x --steps 1 --seq 16
wrong 1 'cut.gz: ' pretrain m --text cut.gz --out x --steps 1 --seq 16
wrong 1 'cut/model.safetensors: ' generate cut --prompt a
wrong 1 'the tokenizer has 300 ids' pretrain small --text text --out x --steps 1 --seq 16
wrong 1 'the tokenizer has 300 ids' inspect small --check
wrong 2 'wanted last:N with N from 1 to 1' finetune m --data text --tuner last:7 --out x --steps 1 --seq 16
wrong 2 'lora: r: found 3:alpha=2; wanted a whole number (rank)' finetune m --data text --tuner lora:r=3:alpha=2 --out x --steps 1 --seq 16
wrong 2 'lora: r: found nothing; wanted a whole number' finetune m --data text --tuner lora:r= --out x --steps 1 --seq 16
wrong 1 'nosuch: no such folder, nor a name; wanted a module' eval m --text text --modules 'sum(nosuch, nosuch)'
wrong 1 'text: found a file that is no module; wanted a module' eval m --text text --modules text
wrong 2 'lora: alpha: found nan; wanted a finite number' finetune m --data text --tuner lora:alpha=nan --out x --steps 1 --seq 16
wrong 1 'nosuch: no trained parameter has such a name; wanted a regular expression' finetune m --data text --tuner full --lr-scale nosuch=2 --out x --steps 1 --seq 16
wrong 1 'no module of the model' finetune m --data text --tuner lora:targets=nothing --out x --steps 1 --seq 16
wrong 1 'alone take' generate m --prompt a --memory 1
cp -r m nan && printf '\377\377\377\177' | dd of=nan/model.safetensors bs=1 seek=$(($(wc -c <m/model.safetensors) - 4)) conv=notrunc 2>/dev/null
wrong 1 'nan: the loss is' eval nan --text text --seq 16

# ---- merging
wrong 2 'wanted MODEL --modules EXPR' merge m --out x
wrong 2 'found several of' merge m --modules a --extract r=4 --out x
wrong 2 'found a recipe and' merge m --recipe missing --out x
wrong 1 'missing: No such file' merge --recipe missing --out x
wrong 1 "merge_method 'mean': unknown" merge --method mean m m --out x
wrong 1 "no method has an option 'wieght'" merge --method linear m m --set parameters.wieght=1 --out x
wrong 2 'no base_model' merge --method ties m --out x
wrong 2 'wanted --text FILE' merge --method fisher m m --out x
wrong 1 'wanted f32' merge --method linear m small --out x
wrong 2 'wanted two models' merge --connect m --text text
wrong 2 'wanted r=16' merge --extract rank=4 --base m m --out x
right merge --method linear m m --out merged
right inspect merged --check
right merge --connect m merged --text text --seq 16 --out line
right merge --method linear --base merged m m --out based
grep -qF 'the weights of base_model merged are left out' err || say "linear with a base that is no model: no warning: $(cat err)"
right merge --method linear --base m m merged --out listed
grep -qF 'left out' err && say "linear with a base that is listed: $(cat err)"
right merge --extract r=2 --base m merged --out extracted
grep -qF 'acts on the input alone' err || say "extracting from a tied model: no warning: $(cat err)"

# ---- comparing: what was not measured is a dash
right compare m --task text --data text --valid text --steps 1 --batch 1 --seq 16 --tuner lora:r=2 --out compared
if grep -q nan out || ! grep -q ' - ' out; then say "compare: found $(cat out)"; fi

# ---- what is given is taken: none is none, a run.json repeats its run
right pretrain m --text text --steps 3 --batch 2 --seq 16 --warmup 0 --clip 0 --weight-decay 0 --out a --json
cp out first
right pretrain m --config a/run.json --out b --json
for key in loss steps tokens; do
    [ "$(grep -o "\"$key\": [^,]*" first)" = "$(grep -o "\"$key\": [^,]*" out)" ] || say "--config run.json gives another $key"
done
right pretrain m --text text --steps 3 --warmup 9 --seq 16 --batch 2 --out warm
grep -qF -- '--warmup 9: the run has 3 steps' err || say "a warm-up beyond the run: no warning: $(cat err)"
wrong 1 'a: holds a run already' pretrain m --text text --steps 3 --out a --seq 16
if flock -n a/run "$cambium" pretrain m --text text --steps 4 --batch 2 --seq 16 --resume --out a >out 2>err; then say 'two runs in one folder'; fi
grep -qF 'a/run: another run is writing here' err || say "two runs in one folder: $(cat err)"
right pretrain m --text short --steps 1 --batch 1 --seq 2 --out c
[ $failed = 0 ]
