/* Distillation: a student learns a frozen teacher's distribution beside the labels (Hinton, Vinyals and Dean 2015). */
#ifndef API_DISTILL_H
#define API_DISTILL_H
#include "api/instance.h"

struct teacher {
    struct instance instance;
    struct pass pass;
    bool is_open;
};
/* A teacher of the same inputs and outputs as the student's graph will have: io of its pass, without a loss. Nullable: as. Free with teacher_close, also after
   a failure. */
enum cb_status teacher_open(struct teacher *teacher, struct cb_engine *engine, const char *model, const struct model_as *as,
                            const struct model_io *io, struct cb_err *err);
void teacher_close(struct teacher *teacher);
/* The student's loss with the teacher's in it: (1 - share) loss + share T^2 KL(teacher at T || student at T), the mean over the rows that have a label. Adds
   the student's input "teacher_logits". */
struct cb_tensor *distill_loss(struct nn *nn, const struct model_io *io, double share, double temperature);
/* Runs the teacher on what the student's inputs hold, and fills teacher_logits. */
enum cb_status teacher_run(struct teacher *teacher, struct pass *student, struct cb_err *err);
#endif
