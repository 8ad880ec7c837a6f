/* TensorBoard event files: TFRecord frames with masked CRC-32C around protocol-buffer events that are written by hand. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "train/report.h"

struct events {
    int fd;
    char *path;
};

/* One message being built; the sizes here are bounded by the callers. */
struct message {
    unsigned char byte[1024];
    size_t n;
};

/* CRC-32C (Castagnoli, reflected 0x82F63B78), bit by bit: an event is a few hundred bytes. */
static uint32_t crc32c(const unsigned char *p, size_t n) {
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int k = 0; k < 8; k++) crc = (crc >> 1) ^ (0x82F63B78u & (0u - (crc & 1)));
    }
    return ~crc;
}

/* The mask of TFRecord: checksums of bytes that hold checksums stay strong. */
static uint32_t masked_crc(const unsigned char *p, size_t n) {
    uint32_t crc = crc32c(p, n);
    return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

static void put_little(struct message *m, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++) m->byte[m->n++] = (unsigned char)(v >> (8 * i));
}

static void put_varint(struct message *m, uint64_t v) {
    for (; v >= 128; v >>= 7) m->byte[m->n++] = (unsigned char)(v | 128);
    m->byte[m->n++] = (unsigned char)v;
}

/* Protocol-buffer fields: number and wire type (0 varint, 1 eight bytes, 2 bytes with their length, 5 four bytes). */
static void put_key(struct message *m, int field, int wire) { put_varint(m, (uint64_t)(field << 3 | wire)); }

static void put_bytes(struct message *m, int field, const void *bytes, size_t n) {
    put_key(m, field, 2);
    put_varint(m, n);
    memcpy(m->byte + m->n, bytes, n);
    m->n += n;
}

/* Event.wall_time is field 1, Event.step field 2. */
static struct message event_begin(int64_t step) {
    struct message m = {.n = 0};
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    double wall = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    uint64_t bits;
    memcpy(&bits, &wall, 8);
    put_key(&m, 1, 1);
    put_little(&m, bits, 8);
    put_key(&m, 2, 0);
    put_varint(&m, (uint64_t)step);
    return m;
}

/* One frame: length, its checksum, the event, its checksum; in one write. */
static enum cb_status write_event(struct events *e, const struct message *event, struct cb_err *err) {
    struct message frame = {.n = 0};
    put_little(&frame, event->n, 8);
    put_little(&frame, masked_crc(frame.byte, 8), 4);
    memcpy(frame.byte + frame.n, event->byte, event->n);
    frame.n += event->n;
    put_little(&frame, masked_crc(event->byte, event->n), 4);
    for (size_t done = 0; done < frame.n;) {
        ssize_t n = write(e->fd, frame.byte + done, frame.n - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) FAIL(err, CB_E_IO, "%s: cannot write: %s", e->path, strerror(errno));
        done += (size_t)n;
    }
    return CB_OK;
}

/* A name that no file has yet: two runs may begin within one second. */
static enum cb_status create_file(struct events *e, const char *folder, struct cb_err *err) {
    char name[200], host[65] = "";
    if (gethostname(host, sizeof host - 1) != 0 || !*host) strcpy(host, "localhost");
    for (char *p = host; *p; p++)
        if (*p == '/') *p = '_';
    for (int attempt = 0; attempt < 1000; attempt++) {
        int n = snprintf(name, sizeof name, "events.out.tfevents.%010" PRId64 ".%s", (int64_t)time(NULL), host);
        if (attempt) snprintf(name + n, sizeof name - (size_t)n, ".%d", attempt);
        free(e->path);
        if (!(e->path = io_path_join(folder, name))) FAIL(err, CB_E_MEMORY, "%s: out of memory", name);
        e->fd = open(e->path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
        if (e->fd >= 0) return CB_OK;
        if (errno != EEXIST) break;
    }
    FAIL(err, CB_E_IO, "%s: cannot make: %s", e->path, strerror(errno));
}

/* file_version is field 3; session_log field 7, whose status (field 1) START is 1. */
static enum cb_status write_start(struct events *e, int64_t first_step, struct cb_err *err) {
    struct message version = event_begin(0);
    put_bytes(&version, 3, "brain.Event:2", 13);
    TRY(write_event(e, &version, err));
    if (first_step <= 1) return CB_OK;
    struct message start = event_begin(first_step);
    put_bytes(&start, 7, "\x08\x01", 2);
    return write_event(e, &start, err);
}

enum cb_status events_open(struct events **events, const char *folder, int64_t first_step, struct cb_err *err) {
    *events = NULL;
    struct events *e = calloc(1, sizeof *e);
    if (!e) FAIL(err, CB_E_MEMORY, "training: out of memory");
    e->fd = -1;
    enum cb_status status = create_file(e, folder, err);
    if (status == CB_OK) status = write_start(e, first_step, err);
    if (status != CB_OK) {
        events_close(&e);
        return status;
    }
    *events = e;
    return CB_OK;
}

void events_close(struct events **events) {
    if (!*events) return;
    if ((*events)->fd >= 0) close((*events)->fd);
    free((*events)->path);
    free(*events);
    *events = NULL;
}

/* Event.summary is field 5, a list of Summary.value (field 1): tag is field 1, simple_value field 2. */
enum cb_status events_scalars(struct events *e, int64_t step, const char *const *tags, const double *values, int n, struct cb_err *err) {
    struct message event = event_begin(step), summary = {.n = 0};
    for (int i = 0; i < n && i < 8; i++) {
        if (!isfinite(values[i])) continue;
        struct message value = {.n = 0};
        float v = (float)values[i];
        uint32_t bits;
        memcpy(&bits, &v, 4);
        put_bytes(&value, 1, tags[i], strnlen(tags[i], 64));
        put_key(&value, 2, 5);
        put_little(&value, bits, 4);
        put_bytes(&summary, 1, value.byte, value.n);
    }
    put_bytes(&event, 5, summary.byte, summary.n);
    return write_event(e, &event, err);
}
