/* Which expressions cut the text of which byte-level vocabulary; the models' own tokenizer.json files and llama.cpp's list of names tell them. */
#include "text/patterns.h"

#include <stdio.h>

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define AFTER_DIGITS "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CL100K CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" AFTER_DIGITS
#define QWEN2 CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" AFTER_DIGITS
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define O200K                                                                                                             \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" CONTRACTIONS "?|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" CONTRACTIONS \
    "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define TEKKEN                                                                          \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER \
    "*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*"                                          \
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define BLOOM " ?[^(\\s|[.,!?\xe2\x80\xa6\xe3\x80\x82\xef\xbc\x8c\xe3\x80\x81\xe0\xa5\xa4\xdb\x94\xd8\x8c])]+"  // a class within a class
/* Cased letters of the older scripts and blocks. */
#define CASED                                                                                                                              \
    "[[\\p{Lu}\\p{Ll}\\p{Lt}]&&[\\x{0}-\\x{55f}\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13ff}\\x{1c90}-\\x{1cbf}\\x{1d00}-\\x{218f}\\x{2c00}-\\x{" \
    "2cff}"                                                                                                                                \
    "\\x{a640}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb1f}\\x{ff00}-\\x{ffef}\\x{10400}-\\x{104ff}\\x{10c80}-\\x{10cff}"               \
    "\\x{118a0}-\\x{118ff}\\x{1e900}-\\x{1e943}]]"
#define CJK "[\xe4\xb8\x80-\xe9\xbe\xa5\xe0\xa0\x80-\xe4\xb8\x80\xea\xb0\x80-\xed\x9f\xbf]+"

static const struct text_pattern patterns[] = {
    {
        .names = "|gpt-2|gpt2|r50k_base|p50k_base|p50k_edit|mpt|olmo|jais|trillion|granite-docling|jina-v1-en|jina-v2-code|jina-v2-es|jina-"
                 "v2-de|"
                 "jina-es|jina-de|phi-2|roberta-bpe|gigachat|a.x-4.0|mellum|modern-bert|modernbert|exaone4|",
        .regex = {GPT2},
    },
    {.names = "|llama3|llama-v3|llama-bpe|falcon3|falcon-h1|pixtral|midm-2.0|lfm2|jina-v5-nano|",
     .regex = {CL100K},
     .ignore_merges = true,
     .add_bos = true},
    {.names = "|cl100k|cl100k_base|dbrx|smaug-bpe|chatglm-bpe|", .regex = {CL100K}},
    {.names = "|glm4|glm5|", .regex = {CL100K}, .ignore_merges = true},
    {.names = "|qwen2|stablelm2|hunyuan|megrez|deepseek-r1-qwen|kormo|solar-open|f2llmv2|grok-2|", .regex = {QWEN2}},
    {.names = "|laguna|", .regex = {"[^\\n]+|[\\n]+", QWEN2}},
    {.names = "|ufakzeka|", .regex = {"[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" AFTER_DIGITS}},
    {.names = "|minicpm5|",
     .regex = {"\\p{N}{1,3}", CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}+" AFTER_DIGITS},
     .ignore_merges = true},
    {.names = "|jais-2|",
     .regex = {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s{512}(?!\\S)|"
                            "\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|"
                            "\\s{1,2}(?!\\S)|\\s{1}"}},
    {.names = "|bailingmoe|bailingmoe2|llada-moe|",
     .regex = {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|"
               "\\s+(?!\\S)|\\s+"}},
    {.names = "|seed-coder|",
     .regex = {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {.names = "|exaone-moe|",
     .regex = {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|"
                            "\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {.names = "|qwen35|",
     .regex = {CONTRACTIONS
               "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {.names = "|gpt-4o|o200k|o200k_base|o200k_harmony|llama4|kanana2|talkie|minimax-m2|", .regex = {O200K}},
    {.names = "|granite-embed-multi-97m|", .regex = {O200K}, .ignore_merges = true},
    {.names = "|tiny_aya|cohere2moe|", .regex = {"\\d{1,3}(?=(?:\\d{3})*\\b)", O200K}},
    {.names = "|tekken|", .regex = {TEKKEN}, .ignore_merges = true, .add_bos = true},
    {.names = "|starcoder|refact|command-r|smollm|codeshell|exaone|minerva-7b|mellum2|", .regex = {"\\p{N}", GPT2}},
    {.names = "|deepseek-coder|", .regex = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK, "\\p{N}"}},
    {.names = "|deepseek-llm|",
     .regex = {"[\\r\\n]", "\\s?" CASED "+",
               "\\s?[!-/:-~\xef\xbc\x81-\xef\xbc\x8f\xef\xbc\x9a-\xef\xbd\x9e\xe2\x80\x98-\xe2\x80\x9f\xe3\x80\x80-\xe3\x80\x82]+", "\\s+$",
               CJK, "\\p{N}"},
     .add_bos = true},
    {.names = "|deepseek-v3|hunyuan-dense|joyai-llm|hy_v4|",
     .regex =
         {"\\p{N}{1,3}", "[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f\xe3\x82\xa0-\xe3\x83\xbf]+",
          "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|"
          "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {.names = "|falcon|", .regex = {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"}},
    {.names = "|default|", .regex = {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {.names = "|bloom|poro-chat|gpt3-finnish|", .regex = {BLOOM}},
    {.names = "|viking|", .regex = {BLOOM, "\\p{N}"}},
    {.names = "|chameleon|",
     .regex = {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )", "\\p{N}", "[\\p{P}!-/:-@\\[-`{-~]", GPT2},
     .add_bos = true},
};

const struct text_pattern *text_pattern_find(const char *name) {
    char wanted[64];
    if (snprintf(wanted, sizeof wanted, "|%s|", name) >= (int)sizeof wanted || strchr(name, '|')) return NULL;
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
        if (strstr(patterns[i].names, wanted)) return &patterns[i];
    return NULL;
}

enum cb_status text_pattern_parts(struct tokenizer *t, const char *const *regex, const char *name, struct cb_err *err) {
    json_t *stages = json_array(),
           *decoder = json_pack("{sssbsbsb}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex", 1);
    int bad = !stages || !decoder;
    for (size_t i = 0; i < 6 && regex[i]; i++)
        bad |= json_array_append_new(
            stages, json_pack("{sss{ss}sssb}", "type", "Split", "pattern", "Regex", regex[i], "behavior", "Isolated", "invert", 0));
    bad |= json_array_append_new(stages,
                                 json_pack("{sssbsbsb}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex", 0));
    json_t *pre = json_pack("{sssO}", "type", "Sequence", "pretokenizers", stages);
    enum cb_status status = bad || !pre ? err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory", name) : CB_OK;
    if (!status) status = part_read(t, &t->part[ROLE_PRE_TOKENIZER], ROLE_PRE_TOKENIZER, pre, name, 0, err);
    if (!status) status = part_read(t, &t->part[ROLE_DECODER], ROLE_DECODER, decoder, name, 0, err);
    json_decref(stages), json_decref(decoder), json_decref(pre);
    return status;
}
