# Cambium: `make` builds build/cambium and the library; `make demo`, `make test`, `make lint`, `make install`.
BUILD ?= build
PREFIX ?= /usr/local
CC ?= cc
VERSION := 0.1.0
WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wvla
CFLAGS ?= -O3 -g
SANITIZE ?=
CB_CFLAGS := -std=c11 -D_GNU_SOURCE $(WARN) $(CFLAGS) -fno-math-errno -fno-trapping-math -ffp-contract=off -fPIC -fvisibility=default $(SANITIZE) -Iinclude -Isrc -I$(BUILD) -DCB_VERSION=\"$(VERSION)\"
LIBS := -ljansson -lz -lzstd -lonig -lutf8proc -lpthread -lm
GEN := $(BUILD)/gen

# Rooms of the library, in the order of their levels; the command alone is outside it.
ROOMS := base io text data graph store ops backend/cpu backend/null nn models modules merge train run eval api
SRC := $(foreach room,$(ROOMS),$(wildcard src/$(room)/*.c))
CLI := $(wildcard src/cli/*.c)
OBJ := $(SRC:%.c=$(BUILD)/%.o) $(GEN)/attrs.o
CLI_OBJ := $(CLI:%.c=$(BUILD)/%.o)

all: $(BUILD)/libcambium.a $(if $(CLI),$(BUILD)/cambium)

# ---- generated: attribute structs, and one list per registry (a folder and a prefix)
registry = $(GEN)/$(1).inc
define REGISTRY
$(GEN)/$(1).inc: $(wildcard $(3)/$(4)*.c) tools/gen_registry.sh Makefile $(3)
	@mkdir -p $(GEN)
	@tools/gen_registry.sh $(2) $(4) $(wildcard $(3)/$(4)*.c) > $$@.tmp && { cmp -s $$@.tmp $$@ && rm $$@.tmp || mv $$@.tmp $$@; }
GEN_ALL += $(GEN)/$(1).inc
endef
GEN_ALL := $(GEN)/attrs.h
$(eval $(call REGISTRY,ops,OP_FILE,src/ops,op_))
$(eval $(call REGISTRY,cpu_kernels,KERNEL_FILE,src/backend/cpu,k_))
$(eval $(call REGISTRY,models,MODEL,src/models,model_))
$(eval $(call REGISTRY,tuners,TUNER,src/modules,tuner_))
$(eval $(call REGISTRY,optimizers,OPTIMIZER,src/train,opt_))
$(eval $(call REGISTRY,evals,EVAL,src/eval,eval_))
$(eval $(call REGISTRY,commands,COMMAND,src/cli,cmd_))
OP_FILES := $(wildcard src/ops/op_*.c)
$(GEN)/attrs.h: $(OP_FILES) tools/gen_attrs.sh src/ops
	@mkdir -p $(GEN)
	@tools/gen_attrs.sh h $(OP_FILES) /dev/null > $@.tmp && { cmp -s $@.tmp $@ && rm $@.tmp || mv $@.tmp $@; }
$(GEN)/attrs.c: $(GEN)/attrs.h
	@tools/gen_attrs.sh c $(OP_FILES) /dev/null > $@
$(GEN)/attrs.o: $(GEN)/attrs.c
	$(CC) $(CB_CFLAGS) -c $< -o $@
src/ops src/backend/cpu src/models src/modules src/train src/eval src/cli:
	@mkdir -p $@

# ---- compile: the suffix of a kernel file sets its instruction set
%_avx2.o: ISA := -mavx2 -mfma -mf16c -ffp-contract=fast
%_avx512.o: ISA := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c -mprefer-vector-width=512 -ffp-contract=fast
$(BUILD)/%.o: %.c | $(GEN_ALL)
	@mkdir -p $(dir $@)
	$(CC) $(CB_CFLAGS) $(ISA) -MMD -MP -c $< -o $@
-include $(OBJ:.o=.d) $(CLI_OBJ:.o=.d)

$(BUILD)/libcambium.a: $(OBJ)
	@rm -f $@
	ar rcs $@ $^
$(BUILD)/cambium: $(CLI_OBJ) $(BUILD)/libcambium.a
	$(CC) $(CB_CFLAGS) $^ $(LIBS) -o $@

clean:
	rm -rf $(BUILD)
.PHONY: all clean
