/* Chat templates of our own, for models that bring none: the usual formats, each marking what the assistant says. */
#include <string.h>

#include "text/chat.h"

#define ASSISTANT(text) "{% generation %}" text "{% endgeneration %}"
#define PROMPT(text) "{% if add_generation_prompt %}" text "{% endif %}"

static const struct {
    const char *name, *source;
} templates[] = {
    // <|im_start|>role, text, <|im_end|>: Qwen and many others
    {"chatml",
     "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
     "{% if m.role == 'assistant' %}" ASSISTANT("{{ m.content + '<|im_end|>' }}") "{% else %}{{ m.content + '<|im_end|>' }}{% endif %}"
                                                                                  "{{ '\\n' }}{% endfor %}" PROMPT(
                                                                                      "{{ '<|im_start|>assistant\\n' }}")},
    {"llama3",
     "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' }}"
     "{% if m.role == 'assistant' %}" ASSISTANT(
         "{{ m.content | trim + '<|eot_id|>' }}") "{% else %}{{ m.content | trim + '<|eot_id|>' }}{% endif %}"
                                                  "{% endfor %}" PROMPT("{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}")},
    // the system's text goes into the first question
    {"llama2",
     "{% set ns = namespace(system='') %}{% for m in messages %}"
     "{% if m.role == 'system' %}{% set ns.system = '<<SYS>>\\n' + m.content | trim + '\\n<</SYS>>\\n\\n' %}"
     "{% elif m.role == 'assistant' %}" ASSISTANT(
         "{{ ' ' + m.content | trim + ' ' + eos_token }}") "{% else %}{{ bos_token + '[INST] ' + ns.system + m.content | trim + ' "
                                                           "[/INST]' }}{% set ns.system = '' %}{% endif %}{% endfor %}"},
    {"mistral",
     "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}"
     "{% if m.role == 'system' %}{% set ns.system = m.content | trim + '\\n\\n' %}"
     "{% elif m.role == 'assistant' %}" ASSISTANT(
         "{{ ' ' + m.content | trim + eos_token }}") "{% else %}{{ '[INST] ' + ns.system + m.content | trim + '[/INST]' }}{% set "
                                                     "ns.system = '' %}{% endif %}{% endfor %}"},
    {"gemma",
     "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}"
     "{% if m.role == 'system' %}{% set ns.system = m.content | trim + '\\n\\n' %}"
     "{% elif m.role == 'assistant' %}{{ '<start_of_turn>model\\n' }}" ASSISTANT(
         "{{ m.content | trim + '<end_of_turn>' }}") "{{ '\\n' }}"
                                                     "{% else %}{{ '<start_of_turn>' + m.role + '\\n' + ns.system + m.content | "
                                                     "trim + '<end_of_turn>\\n' }}{% set ns.system = '' %}{% endif %}"
                                                     "{% endfor %}" PROMPT("{{ '<start_of_turn>model\\n' }}")},
    {"phi3",
     "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>\\n' }}"
     "{% if m.role == 'assistant' %}" ASSISTANT("{{ m.content + '<|end|>' }}") "{% else %}{{ m.content + '<|end|>' }}{% endif %}"
                                                                               "{{ '\\n' }}{% endfor %}" PROMPT(
                                                                                   "{{ '<|assistant|>\\n' }}")},
    {"zephyr",
     "{% for m in messages %}{{ '<|' + m.role + '|>\\n' }}"
     "{% if m.role == 'assistant' %}" ASSISTANT("{{ m.content + eos_token }}") "{% else %}{{ m.content + eos_token }}{% endif %}"
                                                                               "{{ '\\n' }}{% endfor %}" PROMPT(
                                                                                   "{{ '<|assistant|>\\n' }}")},
    {"vicuna",
     "{{ bos_token }}{% for m in messages %}"
     "{% if m.role == 'system' %}{{ m.content | trim + ' ' }}"
     "{% elif m.role == 'assistant' %}{{ 'ASSISTANT:' }}" ASSISTANT(
         "{{ ' ' + m.content | trim + eos_token }}") "{% else %}{{ 'USER: ' + m.content | trim + ' ' }}{% endif %}{% endfor "
                                                     "%}" PROMPT("{{ 'ASSISTANT:' }}")},
    // headings of plain words: for models whose vocabulary has no marks of its own
    {"alpaca",
     "{% for m in messages %}"
     "{% if m.role == 'system' %}{{ m.content | trim + '\\n\\n' }}"
     "{% elif m.role == 'assistant' %}{{ '### Response:\\n' }}" ASSISTANT(
         "{{ m.content | trim + (eos_token or '') }}") "{{ '\\n\\n' }}"
                                                       "{% else %}{{ '### Instruction:\\n' + m.content | trim + '\\n\\n' }}{% "
                                                       "endif %}{% endfor %}" PROMPT("{{ '### Response:\\n' }}")},
};
#define COUNT (sizeof templates / sizeof *templates)

const char *chat_builtin(const char *name) {
    for (size_t i = 0; i < COUNT; i++)
        if (!strcmp(templates[i].name, name)) return templates[i].source;
    return NULL;
}

const char *const *chat_builtin_names(void) {
    static const char *const names[COUNT + 1] = {"chatml", "llama3", "llama2", "mistral", "gemma",
                                                 "phi3",   "zephyr", "vicuna", "alpaca",  NULL};
    return names;
}
