/* Results on standard output. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

void cli_json_text(FILE *f, const char *text) {
    fputc('"', f);
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == '"' || *p == '\\')
            fprintf(f, "\\%c", *p);
        else if (*p == '\n')
            fputs("\\n", f);
        else if (*p == '\t')
            fputs("\\t", f);
        else if (*p < 0x20)
            fprintf(f, "\\u%04x", *p);
        else
            fputc(*p, f);
    }
    fputc('"', f);
}

static void print_bytes(double bytes) {
    if (bytes >= 1 << 30)
        printf("%.2f GiB", bytes / (1 << 30));
    else if (bytes >= 1 << 20)
        printf("%.1f MiB", bytes / (1 << 20));
    else
        printf("%.0f bytes", bytes);
}

static void print_field(const struct cli *cli, const struct field *f, const void *result) {
    const char *p = (const char *)result + f->offset;
    double number = f->kind == FIELD_NUMBER ? *(const double *)p : 0;
    const char *text = f->kind == FIELD_TEXT ? *(const char *const *)p : NULL;
    switch (f->kind) {
        case FIELD_INT: printf("%lld", (long long)*(const int64_t *)p); break;
        case FIELD_BYTES:
            if (cli->json)
                printf("%lld", (long long)*(const int64_t *)p);
            else
                print_bytes((double)*(const int64_t *)p);
            break;
        case FIELD_NUMBER:
            if (!isfinite(number))
                fputs(cli->json ? "null" : "-", stdout);
            else
                printf(cli->json ? "%.9g" : "%.5g", number);
            break;
        case FIELD_TEXT:
            if (!cli->json)
                fputs(text ? text : "-", stdout);
            else if (text)
                cli_json_text(stdout, text);
            else
                fputs("null", stdout);
            break;
    }
}

void cli_print(const struct cli *cli, const struct field *fields, const void *result) {
    if (cli->json) putchar('{');
    for (const struct field *f = fields; f->name; f++) {
        if (cli->json)
            printf("%s\"%s\": ", f == fields ? "" : ", ", f->name);
        else
            printf("%-24s ", f->name);
        print_field(cli, f, result);
        if (!cli->json) putchar('\n');
    }
    if (cli->json) puts("}");
}
