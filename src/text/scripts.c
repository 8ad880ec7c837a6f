/* The UnicodeScripts pre-tokeniser: text is cut where the script changes, as in Unicode 9. */
#include "text/bytelevel.h"
#include "text/unicode.h"
#include "text/unicode_age.h"
#include "text/utf8.h"

/* The scripts that are told apart; what is in none of them, or younger than Unicode 9, goes with anything. */
static const char *const names[] = {"Common",
                                    "Latin",
                                    "Cyrillic",
                                    "Han",
                                    "Inherited",
                                    "Adlam",
                                    "Ahom",
                                    "Anatolian_Hieroglyphs",
                                    "Arabic",
                                    "Armenian",
                                    "Avestan",
                                    "Balinese",
                                    "Bamum",
                                    "Bassa_Vah",
                                    "Batak",
                                    "Bengali",
                                    "Bhaiksuki",
                                    "Bopomofo",
                                    "Brahmi",
                                    "Braille",
                                    "Buginese",
                                    "Buhid",
                                    "Canadian_Aboriginal",
                                    "Carian",
                                    "Caucasian_Albanian",
                                    "Chakma",
                                    "Cham",
                                    "Cherokee",
                                    "Coptic",
                                    "Cuneiform",
                                    "Cypriot",
                                    "Deseret",
                                    "Devanagari",
                                    "Duployan",
                                    "Egyptian_Hieroglyphs",
                                    "Elbasan",
                                    "Ethiopic",
                                    "Georgian",
                                    "Glagolitic",
                                    "Gothic",
                                    "Grantha",
                                    "Greek",
                                    "Gujarati",
                                    "Gurmukhi",
                                    "Hangul",
                                    "Hanunoo",
                                    "Hatran",
                                    "Hebrew",
                                    "Hiragana",
                                    "Imperial_Aramaic",
                                    "Inscriptional_Pahlavi",
                                    "Inscriptional_Parthian",
                                    "Javanese",
                                    "Kaithi",
                                    "Kannada",
                                    "Katakana",
                                    "Kayah_Li",
                                    "Kharoshthi",
                                    "Khmer",
                                    "Khojki",
                                    "Khudawadi",
                                    "Lao",
                                    "Lepcha",
                                    "Limbu",
                                    "Linear_A",
                                    "Linear_B",
                                    "Lisu",
                                    "Lycian",
                                    "Lydian",
                                    "Mahajani",
                                    "Malayalam",
                                    "Mandaic",
                                    "Manichaean",
                                    "Marchen",
                                    "Meetei_Mayek",
                                    "Mende_Kikakui",
                                    "Meroitic_Cursive",
                                    "Meroitic_Hieroglyphs",
                                    "Miao",
                                    "Modi",
                                    "Mongolian",
                                    "Mro",
                                    "Multani",
                                    "Myanmar",
                                    "Nabataean",
                                    "New_Tai_Lue",
                                    "Newa",
                                    "Nko",
                                    "Ogham",
                                    "Ol_Chiki",
                                    "Old_Hungarian",
                                    "Old_Italic",
                                    "Old_North_Arabian",
                                    "Old_Permic",
                                    "Old_Persian",
                                    "Old_South_Arabian",
                                    "Old_Turkic",
                                    "Oriya",
                                    "Osage",
                                    "Osmanya",
                                    "Pahawh_Hmong",
                                    "Palmyrene",
                                    "Pau_Cin_Hau",
                                    "Phags_Pa",
                                    "Phoenician",
                                    "Psalter_Pahlavi",
                                    "Rejang",
                                    "Runic",
                                    "Samaritan",
                                    "Saurashtra",
                                    "Sharada",
                                    "Shavian",
                                    "Siddham",
                                    "SignWriting",
                                    "Sinhala",
                                    "Sora_Sompeng",
                                    "Sundanese",
                                    "Syloti_Nagri",
                                    "Syriac",
                                    "Tagalog",
                                    "Tagbanwa",
                                    "Tai_Le",
                                    "Tai_Tham",
                                    "Tai_Viet",
                                    "Takri",
                                    "Tamil",
                                    "Tangut",
                                    "Telugu",
                                    "Thaana",
                                    "Thai",
                                    "Tibetan",
                                    "Tifinagh",
                                    "Tirhuta",
                                    "Ugaritic",
                                    "Vai",
                                    "Warang_Citi",
                                    "Yi"};
enum { N_SCRIPTS = sizeof names / sizeof *names, SCRIPT_ANY = -1, SCRIPT_COMMON = 0, SCRIPT_HAN = 3, SCRIPT_DEVANAGARI = 32 };

/* Numbers of the properties, by script. */
static enum cb_status scripts_read(struct tokenizer *t, struct part *part, const json_t *json, const char *where, struct cb_err *err) {
    (void)json;
    int *property = part->data = arena_array(t->arena, N_SCRIPTS, sizeof *property);
    if (!property) FAIL(err, CB_E_MEMORY, "%s: no memory", where);
    for (int i = 0; i < N_SCRIPTS; i++) {
        if ((property[i] = regex_property(names[i])) < 0)
            FAIL(err, CB_E_UNSUPPORTED, "%s: the script %s is not known to Oniguruma", where, names[i]);
    }
    return CB_OK;
}

/* last: the script before, which is tried first. */
static int script_of(const int *property, uint32_t cp, int last) {
    if (cp == ' ') return SCRIPT_ANY;
    if (cp < 0x80) return unicode_class(cp) == UNICODE_LETTER;
    if (cp == 0x30fc) return SCRIPT_HAN;
    // their script was another in Unicode 9
    if (cp == 0x589 || cp == 0x61c) return SCRIPT_COMMON;
    if (cp == 0x953 || cp == 0x954) return SCRIPT_DEVANAGARI;
    if (unicode_is_after_9(cp)) return SCRIPT_ANY;
    int script = last > 0 && regex_has_property(property[last], cp) ? last : 0;
    if (!script)
        while (script < N_SCRIPTS && !regex_has_property(property[script], cp)) script++;
    if (script == N_SCRIPTS) return SCRIPT_ANY;
    // Japanese is one
    return !strcmp(names[script], "Hiragana") || !strcmp(names[script], "Katakana") ? SCRIPT_HAN : script;
}

/* What comes before the first character of a script is dropped, as the reference does. */
static enum cb_status scripts(const struct part *part, struct encoder *e, int stage, const struct piece *piece, struct cb_err *err) {
    size_t from = 0;
    int last = SCRIPT_ANY;
    bool begun = false;
    uint32_t cp = 0;
    for (size_t at = 0, length; at < piece->n; at += length) {
        length = (size_t)utf8_decode(piece->text + at, piece->n - at, &cp);
        if (!length) length = 1;
        int script = script_of(part->data, cp, last);
        if (script == SCRIPT_ANY || (begun && script == last)) continue;
        struct piece before = piece_slice(piece, from, at);
        if (begun) TRY(encoder_emit(e, stage, &before, err));
        from = at, last = script, begun = true;
    }
    struct piece rest = piece_slice(piece, from, piece->n);
    return begun ? encoder_emit(e, stage, &rest, err) : CB_OK;
}

const struct part_kind unicode_scripts_kind = {.type = "UnicodeScripts", .read = scripts_read, .split = scripts};
