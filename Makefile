# Cambium: `make` builds build/cambium and the libraries; also demo, test, lint, bench, examples, docs, install (CONTRIBUTING.md lists all).
BUILD ?= build
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
DESTDIR ?=
CC ?= cc
VERSION := 0.1.0
SOVERSION := 0
WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wvla $(if $(WERROR),-Werror)
CFLAGS ?= -O3 -g
SANITIZE ?=
CB_CFLAGS := -std=c11 -D_GNU_SOURCE $(WARN) $(CFLAGS) -fno-math-errno -fno-trapping-math -ffp-contract=off -fPIC -fvisibility=default $(SANITIZE) -Iinclude -Isrc -I$(BUILD) -DCB_VERSION=\"$(VERSION)\"
LIBS := -ljansson -lyaml -lz -lzstd -lonig -lutf8proc -llapacke -lpthread -lm
GEN := $(BUILD)/gen
# V=1 shows whole commands.
say = $(if $(V),,@echo "  $(1)"; )

# As many jobs as cores, unless -j was given.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 1)
endif

# Kernel files of other processors are left out, of the build and of the registries. Before a compiler is installed this machine is asked.
MACHINE := $(or $(firstword $(subst -, ,$(shell $(CC) -dumpmachine 2>/dev/null))),$(shell uname -m))
FOREIGN := $(if $(filter x86_64 amd64,$(MACHINE)),%_neon.c,%_avx2.c %_avx512.c %_amx.c) $(if $(filter x86_64 amd64 aarch64 arm64,$(MACHINE)),,%_neon.c)
files = $(sort $(filter-out $(FOREIGN),$(wildcard $(1))))

# Rooms of the library, in the order of their levels; the command alone is outside it.
ROOMS := base io text data graph store ops backend/cpu backend/null nn models modules merge train run api
SRC := $(foreach room,$(ROOMS),$(call files,src/$(room)/*.c))
CLI := $(call files,src/cli/*.c)
OBJ := $(SRC:%.c=$(BUILD)/%.o) $(GEN)/attrs.o
CLI_OBJ := $(CLI:%.c=$(BUILD)/%.o)
LIB := $(BUILD)/libcambium.a
SHARED := $(BUILD)/libcambium.so.$(SOVERSION)
COMMAND := $(if $(CLI),$(BUILD)/cambium)

all: $(LIB) $(SHARED) $(COMMAND)

# ---- missing packages are installed first; a stamp makes this free afterwards
$(BUILD)/.setup-build $(BUILD)/.setup-test: $(BUILD)/.setup-%: tools/setup.sh
	@CC="$(CC)" tools/setup.sh $*
	@mkdir -p $(BUILD) && touch $@
$(BUILD)/.setup-test: | $(BUILD)/.setup-build

# ---- generated: attribute structs, and one list per registry (a folder and a prefix)
define REGISTRY
$(GEN)/$(1).inc: $(call files,$(3)/$(4)*.c) tools/gen_registry.sh Makefile $(3)
	@mkdir -p $(GEN)
	@tools/gen_registry.sh $(2) $(4) $(call files,$(3)/$(4)*.c) > $$@.tmp && { cmp -s $$@.tmp $$@ && rm $$@.tmp || mv $$@.tmp $$@; }
GEN_ALL += $(GEN)/$(1).inc
endef
GEN_ALL := $(GEN)/attrs.h
$(eval $(call REGISTRY,ops,OP_FILE,src/ops,op_))
$(eval $(call REGISTRY,cpu_kernels,KERNEL_FILE,src/backend/cpu,k_))
$(eval $(call REGISTRY,models,MODEL,src/models,model_))
$(eval $(call REGISTRY,tuners,TUNER,src/modules,tuner_))
$(eval $(call REGISTRY,merges,MERGE,src/merge,merge_))
$(eval $(call REGISTRY,optimizers,OPTIMIZER,src/train,opt_))
$(eval $(call REGISTRY,readers,READER,src/data,read_))
$(eval $(call REGISTRY,commands,COMMAND,src/cli,cmd_))
OP_FILES := $(call files,src/ops/op_*.c)
$(GEN)/attrs.h: $(OP_FILES) tools/gen_attrs.sh src/ops
	@mkdir -p $(GEN)
	@tools/gen_attrs.sh h $(OP_FILES) /dev/null > $@.tmp && { cmp -s $@.tmp $@ && rm $@.tmp || mv $@.tmp $@; }
$(GEN)/attrs.c: $(GEN)/attrs.h
	@tools/gen_attrs.sh c $(OP_FILES) /dev/null > $@
$(GEN)/attrs.o: $(GEN)/attrs.c $(BUILD)/.flags | $(BUILD)/.setup-build
	$(call say,CC $<)$(CC) $(CB_CFLAGS) -c $< -o $@
src/ops src/data src/backend/cpu src/models src/modules src/merge src/train src/cli:
	@mkdir -p $@

# ---- stamps that change with what they hold: the compiler's flags, the files of the library and of the tests
define STAMP
$(BUILD)/$(1): FORCE
	@mkdir -p $(BUILD)
	@echo '$(subst ','\'',$(2))' | cmp -s - $$@ || echo '$(subst ','\'',$(2))' > $$@
endef
$(eval $(call STAMP,.flags,$(CC) $(CB_CFLAGS)))
$(eval $(call STAMP,.objects,$(OBJ) $(CLI_OBJ)))
FORCE:

# ---- compile: the suffix of a kernel file sets its instruction set
%_avx2.o: ISA := -mavx2 -mfma -mf16c -ffp-contract=fast
AVX512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c -mprefer-vector-width=512 -ffp-contract=fast
%_avx512.o: ISA := $(AVX512)
%_amx.o: ISA := $(AVX512) -mamx-tile -mamx-bf16
# KERNEL_FLAGS: for the backends alone; fuzzing leaves them without instrumentation, which clang needs minutes for.
$(BUILD)/src/backend/%.o: KERNEL := $(KERNEL_FLAGS)
# GEMM_FLAGS: for the unrolled matrix products, which a sanitizer makes slow to compile.
$(BUILD)/src/backend/cpu/gemm_%.o: GEMM := $(GEMM_FLAGS)
$(BUILD)/%.o: %.c $(BUILD)/.flags | $(GEN_ALL) $(BUILD)/.setup-build
	@mkdir -p $(dir $@)
	$(call say,CC $<)$(CC) $(CB_CFLAGS) $(ISA) $(KERNEL) $(GEMM) -MMD -MP -c $< -o $@
-include $(OBJ:.o=.d) $(CLI_OBJ:.o=.d)

$(LIB): $(OBJ) $(BUILD)/.objects
	@rm -f $@
	$(call say,AR $@)ar rcs $@ $(OBJ)
$(SHARED): $(OBJ) $(BUILD)/.objects tools/cambium.map
	$(call say,LD $@)$(CC) $(CB_CFLAGS) -shared -Wl,-soname,$(@F) -Wl,--version-script=tools/cambium.map $(OBJ) $(LIBS) -o $@
	@ln -sf $(@F) $(BUILD)/libcambium.so
$(BUILD)/cambium: $(CLI_OBJ) $(LIB)
	$(call say,LD $@)$(CC) $(CB_CFLAGS) $(CLI_OBJ) $(LIB) $(LIBS) -o $@

# ---- examples use the public headers alone; benches see the inside
EXAMPLES := $(patsubst examples/%.c,$(BUILD)/examples/%,$(wildcard examples/*.c))
BENCHES := $(patsubst bench/%.c,$(BUILD)/bench/%,$(wildcard bench/bench_*.c))
examples: $(EXAMPLES)
bench: $(BENCHES)
$(BUILD)/examples/%: examples/%.c $(LIB)
	@mkdir -p $(dir $@)
	$(call say,CC $<)$(CC) -std=c11 -D_GNU_SOURCE $(WARN) $(CFLAGS) $(SANITIZE) -Iinclude $< $(LIB) $(LIBS) -o $@
$(BUILD)/bench/%: bench/%.c $(LIB)
	@mkdir -p $(dir $@)
	$(call say,CC $<)$(CC) $(CB_CFLAGS) -Ibench $< $(LIB) $(LIBS) -o $@

include tests/tests.mk

# ---- checks of the text itself
lint: $(OBJ) $(CLI_OBJ)
	@BUILD="$(BUILD)" CC="$(CC)" tools/lint.sh

# ---- documents made from the program, and the demo
docs: $(COMMAND)
	@tools/gen_docs.sh $(BUILD)/cambium
ifneq ($(wildcard tools/demo.sh),)
demo: all
	@CAMBIUM="$(BUILD)/cambium" tools/demo.sh
demo-short: all
	@CAMBIUM="$(BUILD)/cambium" DEMO_SECONDS="$${DEMO_SECONDS:-60}" tools/demo.sh
.PHONY: demo demo-short
endif

# ---- install: the static library as one object that shows cb_* alone, so that its inner names cannot clash with a program's
INSTALL_BIN = $(DESTDIR)$(PREFIX)/bin
INSTALL_LIB = $(DESTDIR)$(LIBDIR)
INSTALL_INC = $(DESTDIR)$(PREFIX)/include/cambium
INSTALL_MAN = $(DESTDIR)$(PREFIX)/share/man/man1
$(BUILD)/install/libcambium.a: $(OBJ) $(BUILD)/.objects
	@mkdir -p $(dir $@) && rm -f $@
	ld -r $(OBJ) -o $(@D)/cambium.o
	objcopy --wildcard --keep-global-symbol='cb_*' $(@D)/cambium.o
	ar rcs $@ $(@D)/cambium.o
install: all $(BUILD)/install/libcambium.a
	install -d $(INSTALL_BIN) $(INSTALL_LIB)/pkgconfig $(INSTALL_INC) $(INSTALL_MAN)
	install -m 644 include/cambium/*.h $(INSTALL_INC)
	install -m 644 $(BUILD)/install/libcambium.a $(INSTALL_LIB)/libcambium.a
	install -m 755 $(SHARED) $(INSTALL_LIB)/libcambium.so.$(VERSION)
	ln -sf libcambium.so.$(VERSION) $(INSTALL_LIB)/$(notdir $(SHARED))
	ln -sf $(notdir $(SHARED)) $(INSTALL_LIB)/libcambium.so
	sed -e 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@VERSION@|$(VERSION)|; s|@LIBS@|$(LIBS)|' tools/cambium.pc.in > $(INSTALL_LIB)/pkgconfig/cambium.pc
	install -m 644 docs/cambium.1 $(INSTALL_MAN)/cambium.1
	$(if $(COMMAND),install -m 755 $(BUILD)/cambium $(INSTALL_BIN)/cambium)
uninstall:
	rm -f $(INSTALL_BIN)/cambium $(INSTALL_MAN)/cambium.1 $(INSTALL_LIB)/pkgconfig/cambium.pc
	rm -f $(INSTALL_LIB)/libcambium.a $(INSTALL_LIB)/libcambium.so $(INSTALL_LIB)/$(notdir $(SHARED)) $(INSTALL_LIB)/libcambium.so.$(VERSION)
	rm -rf $(INSTALL_INC)

clean:
	rm -rf $(BUILD)
.PHONY: all clean examples bench lint docs install uninstall FORCE
