#!/bin/sh
# A module that changes one of two uses of a table is merged into a model whose head has a table of its own, and which is what was attached.
set -eu
# shellcheck source=tests/cli/common.sh
. "$(dirname "$0")/common.sh"
small=hidden_size=32,intermediate_size=64,num_hidden_layers=2,num_attention_heads=4,num_key_value_heads=2
right init --family qwen2 --set $small,tie_word_embeddings=true --tokenizer tok --out m
right init --family gpt2 --set n_embd=32,n_layer=2,n_head=4,n_positions=64 --tokenizer tok --out g
score() { # MODEL OPTION...
    right eval "$@" --text text --quiet --json
    sed 's/.*"loss": *\([0-9.]*\).*/\1/' out
}
# NAME MODEL SPEC
parted() {
    right finetune "$2" --tuner "$3" --text text --out "$1" --steps 8 --lr 0.02 --batch 2 --seq 16 --quiet
    right merge "$2" --modules "$1" --out "$1-merged"
    grep -q '"tie_word_embeddings": false' "$1-merged/config.json" || say "$1: $(cat "$1-merged/config.json")"
    attached=$(score "$2" --modules "$1") merged=$(score "$1-merged") plain=$(score "$2")
    awk "BEGIN { d = $attached - $merged; exit !(d * d < 1e-10) }" || say "$1: attached $attached, merged $merged"
    awk "BEGIN { d = $attached - $plain; exit !(d * d > 1e-6) }" || say "$1: nothing changed: $plain"
}
parted head m lora:r=2,targets=q_proj,save=lm_head
parted both m lora:r=2,targets=q_proj,save=lm_head+embed_tokens
parted table m lora:r=2,targets=q_proj+embed_tokens
parted gpt2 g lora:r=2,targets=c_attn,save=lm_head
# new rows are the table's and the head's, which therefore stay one
right finetune m --tuner lora:r=1,targets=v_proj,tokens=100+101 --text text --out rows --steps 1 --batch 2 --seq 16 --quiet
"$cambium" merge m --modules 'sum(rows, head)' --out x 2>err && say "rows and head: merged"
grep -q 'lm_head: its weight.*folding would change both' err || say "rows and head: $(cat err)"
# what a module warns of is told once, though it is read again
sed 's/"peft_type"/"colour": 1, "peft_type"/' table/adapter_config.json >c.json && mv c.json table/adapter_config.json
right merge m --modules table --out told
[ "$(grep -c 'table/adapter_config.json: unknown keys.*colour' err)" = 1 ] || say "told: $(cat err)"
exit $failed
