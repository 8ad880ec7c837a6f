# Test targets: every tests/**/test_*.c in one program, the sanitizers' tiers, failing allocations, crash loops and fuzzing.
TEST_JOBS ?= 2
FUZZ_SECONDS ?= 600
RACE_SUITES ?= pool|train|data

# ---- sources: test_*.c hold tests, the other files of the same folders are helpers; some folders are programs of their own
TEST_OTHER := tests/plain_main.c tests/replay_main.c tests/fuzz/% tests/oom/% tests/install/% tests/crash/% tests/golden/%
TEST_SRC := $(filter-out $(TEST_OTHER),$(wildcard tests/*.c tests/*/*.c tests/*/*/*.c))
TEST_FILES := $(foreach f,$(TEST_SRC),$(if $(filter test_%,$(notdir $(f))),$(f)))
TEST_HELPERS := $(filter-out $(TEST_FILES),$(TEST_SRC)) $(if $(PLAIN),tests/plain_main.c)
TEST_OBJ := $(TEST_FILES:%.c=$(BUILD)/%.o)
TEST_HELPER_OBJ := $(TEST_HELPERS:%.c=$(BUILD)/%.o)
TEST_RUNNER := $(if $(PLAIN),,-lcriterion)

$(eval $(call STAMP,.tests,$(TEST_SRC) $(PLAIN)))
$(BUILD)/tests/%.o: tests/%.c $(BUILD)/.flags | $(GEN_ALL) $(BUILD)/.setup-test
	@mkdir -p $(dir $@)
	$(call say,CC $<)$(CC) $(CB_CFLAGS) -Itests $(if $(PLAIN),-DPLAIN_RUNNER) -MMD -MP -c $< -o $@
-include $(TEST_OBJ:.o=.d) $(TEST_HELPER_OBJ:.o=.d)

# The whole library is linked, so that a helper with the name of a function of the library is an error and does not stand for it.
$(BUILD)/test: $(TEST_OBJ) $(TEST_HELPER_OBJ) $(LIB) $(BUILD)/.tests
	$(call say,LD $@)$(CC) $(CB_CFLAGS) $(TEST_OBJ) $(TEST_HELPER_OBJ) -Wl,--whole-archive $(LIB) -Wl,--no-whole-archive $(LIBS) $(TEST_RUNNER) -o $@
# One file's tests alone: T=room/test_file.
$(BUILD)/test-one/%: $(BUILD)/tests/%.o $(TEST_HELPER_OBJ) $(LIB)
	@mkdir -p $(dir $@)
	$(call say,LD $@)$(CC) $(CB_CFLAGS) $(filter %.o,$^) $(LIB) $(LIBS) $(TEST_RUNNER) -o $@

# ---- fuzz targets: replayed over their corpus within the tests, driven by libFuzzer in `make fuzz`
FUZZ := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
-include $(FUZZ:%=$(BUILD)/tests/fuzz/fuzz_%.d)
$(BUILD)/replay/%: $(BUILD)/tests/fuzz/fuzz_%.o $(BUILD)/tests/replay_main.o $(LIB)
	@mkdir -p $(dir $@)
	$(call say,LD $@)$(CC) $(CB_CFLAGS) $(filter %.o,$^) $(LIB) $(LIBS) -o $@
$(BUILD)/fuzz/%: $(BUILD)/tests/fuzz/fuzz_%.o $(LIB)
	@mkdir -p $(dir $@)
	$(call say,LD $@)$(CC) $(CB_CFLAGS) -fsanitize=fuzzer $(filter %.o,$^) $(LIB) $(LIBS) -o $@
.PRECIOUS: $(BUILD)/tests/%.o $(BUILD)/tests/fuzz/%.o

# ---- the quick tier
ifdef T
$(if $(wildcard tests/$(T).c),,$(error T=$(T): there is no tests/$(T).c; wanted T=room/test_file))
test: $(BUILD)/test-one/$(T)
	@$(BUILD)/test-one/$(T) $(if $(PLAIN),,-j$(TEST_JOBS) --short-filename)
else
test: $(BUILD)/test $(COMMAND) $(if $(SANITIZE),,$(SHARED) $(EXAMPLES)) $(if $(PLAIN),,$(FUZZ:%=$(BUILD)/replay/%))
	@BUILD="$(BUILD)" CC="$(CC)" MAKE="$(MAKE)" SANITIZE="$(SANITIZE)" TEST_JOBS="$(TEST_JOBS)" PLAIN="$(PLAIN)" tools/run_tests.sh $(if $(PLAIN),'$(RACE_SUITES)')
endif

# ---- the long tiers, each in a build folder of its own
SANITIZED := -O1 -g -fno-omit-frame-pointer -Wno-maybe-uninitialized
# Matrix products: addresses are checked by calls, undefined behaviour is not looked for.
CHEAP_GEMM := -fno-sanitize=undefined -g0 $(if $(findstring clang,$(CC)),-mllvm -asan-instrumentation-with-call-threshold=0,--param asan-instrumentation-with-call-threshold=0)
ASAN := BUILD=$(BUILD)-asan CFLAGS="$(SANITIZED)" SANITIZE="-fsanitize=address,undefined" GEMM_FLAGS="$(CHEAP_GEMM)"
TSAN := BUILD=$(BUILD)-tsan CFLAGS="$(SANITIZED)" SANITIZE="-fsanitize=thread" PLAIN=1
test-asan:
	@$(MAKE) $(ASAN) test
test-tsan:
	@$(MAKE) $(TSAN) RACE_SUITES='$(RACE_SUITES)' test
test-quick-sanitized:
	@$(MAKE) test-asan
	@$(MAKE) test-tsan

# Each allocation failing in turn: tests/oom defines the wrappers.
OOM_SRC := $(wildcard tests/oom/*.c)
OOM_OBJ := $(OOM_SRC:%.c=$(BUILD)/%.o)
OOM_WRAP := $(foreach f,malloc calloc realloc aligned_alloc posix_memalign strdup strndup free fsync,-Wl,--wrap=$(f))
$(BUILD)/test-oom: $(OOM_OBJ) $(LIB)
	$(call say,LD $@)$(CC) $(CB_CFLAGS) $(OOM_WRAP) $(OOM_OBJ) $(LIB) $(LIBS) -o $@
test-oom: $(if $(OOM_SRC),$(BUILD)/test-oom)
	@$(if $(OOM_SRC),$(BUILD)/test-oom,echo "test-oom: tests/oom holds no program")

# Programs killed at random moments: what they leave must be whole.
test-crash: all
	@for f in $(sort $(wildcard tests/crash/*.sh)); do echo "== $$f"; CAMBIUM="$(BUILD)/cambium" BUILD="$(BUILD)" sh $$f || exit 1; done

fuzz:
	@tools/setup.sh all
	@$(MAKE) BUILD=$(BUILD)-fuzz CC=clang CFLAGS="-O1 -g" SANITIZE="-fsanitize=address,undefined,fuzzer-no-link" KERNEL_FLAGS="-fno-sanitize=all -g0" FUZZ_SECONDS=$(FUZZ_SECONDS) fuzz-run
fuzz-run: $(FUZZ:%=$(BUILD)/fuzz/%)
	@BUILD="$(BUILD)" tools/run_fuzz.sh $(FUZZ_SECONDS) $(FUZZ)

# The Python libraries beside the command, each reading what the other wrote. An environment that is there: PYTHON=path/to/python.
INTEROP_PACKAGES := torch==2.15.0 transformers==4.57.6 peft==0.21.2 adapters==1.3.0 tokenizers==0.22.2 safetensors==0.8.0 gguf==0.19.0 \
	sentencepiece==0.2.3 tiktoken==0.14.0 numpy==2.4.6 jinja2==3.1.6 protobuf==7.36.2
INTEROP_LLAMACPP := llama-cpp-python==0.3.36
INTEROP_PYTHON := $(or $(PYTHON),$(BUILD)/interop-venv/bin/python)
$(BUILD)/interop-venv/.ready: tests/tests.mk
	python3 -m venv $(@D)
	$(@D)/bin/pip install -q $(INTEROP_PACKAGES)
	-$(@D)/bin/pip install -q $(INTEROP_LLAMACPP) || echo "interop: llama.cpp cannot be built here; its rows are left out"
	@touch $@
interop: all $(if $(PYTHON),,$(BUILD)/interop-venv/.ready)
	@PYTHONPATH=tests PYTHONDONTWRITEBYTECODE=1 $(INTEROP_PYTHON) -m interop.run --cambium $(BUILD)/cambium --out $(BUILD)/interop.md $(INTEROP_OPTIONS)

test-long:
	@$(MAKE) test-quick-sanitized
	@CAMBIUM_LONG=1 $(MAKE) T=modules/test_tuners test
	@$(MAKE) BUILD=$(BUILD)-oom CFLAGS="$(SANITIZED)" SANITIZE="-fsanitize=address,undefined" GEMM_FLAGS="$(CHEAP_GEMM)" test-oom
	@$(MAKE) test-crash
	@$(MAKE) fuzz
.PHONY: test test-asan test-tsan test-quick-sanitized test-oom test-crash fuzz fuzz-run interop test-long
