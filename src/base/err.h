/* The two error macros: TRY forwards a failure, FAIL records the first one and returns. */
#ifndef BASE_ERR_H
#define BASE_ERR_H
#include <cambium/base.h>
#include <stdarg.h>

/* Records code and message in *err unless it already holds a failure. Nullable: err. Returns code. */
enum cb_status err_set(struct cb_err *err, enum cb_status code, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* Puts "WHERE: " before the message of a failure that is already recorded. Nullable: err. Returns err's code. */
enum cb_status err_prefix(struct cb_err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define FAIL(err, code, ...) return err_set((err), (code), __FILE__, __LINE__, __VA_ARGS__)
#define TRY(call)                                     \
    do {                                              \
        enum cb_status try_status_ = (call);          \
        if (try_status_ != CB_OK) return try_status_; \
    } while (0)
#endif
