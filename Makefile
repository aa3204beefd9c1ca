# darkroom: `make help` lists the targets.
CC       ?= gcc
PREFIX   ?= /usr/local
B        := build
CSTD     := -std=c11 -D_GNU_SOURCE -DCL_TARGET_OPENCL_VERSION=120
WARN     := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wpointer-arith
CFLAGS   ?= -O2 -g
PKGS     := OpenCL clblast hiredis msgpack libwebp libwebpmux spng libturbojpeg libcjson libpcre2-8 libutf8proc inih libxxhash libssl libcrypto libmicrohttpd
# Asked only by the rules that compile, so that `make demo` can install what is missing first.
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS))
PKG_LIBS   = $(shell pkg-config --libs $(PKGS)) -lm -lpthread
ALL_CFLAGS = $(CSTD) $(WARN) $(if $(WERROR),-Werror) $(CFLAGS) $(PKG_CFLAGS) -Isrc -Iinclude -MMD -MP

# `make V=1` shows the commands.
Q        := $(if $(V),,@)
say       = $(if $(V),,@echo "  $(1)  $@")

LIB_SRC  := $(filter-out src/main.c src/cli/%,$(sort $(wildcard src/*/*.c)))
CLI_SRC  := src/main.c $(sort $(wildcard src/cli/*.c))
GEN      := $(B)/gen/kernels.c $(B)/gen/scripts.c $(B)/gen/tunings.c
LIB_OBJ  := $(LIB_SRC:%.c=$(B)/%.o) $(GEN:.c=.o)
CLI_OBJ  := $(CLI_SRC:%.c=$(B)/%.o)

all: $(B)/darkroom ## build the program (build/darkroom)

PROGRAMS := $(addprefix $(B)/,darkroom bench/bench bench/queue/noop bench/peers/ours)

$(B)/darkroom: $(CLI_OBJ)
$(B)/bench/bench: $(patsubst %.c,$(B)/%.o,$(wildcard bench/*.c))
$(B)/bench/queue/noop: $(B)/bench/queue/noop.o
$(B)/bench/peers/ours: $(B)/bench/peers/ours.o
$(PROGRAMS): $(B)/libdarkroom.a
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS) -o $@ $(filter %.o,$^) $(B)/libdarkroom.a $(PKG_LIBS)

$(B)/libdarkroom.a: $(LIB_OBJ)
	$(call say,AR  )
	$(Q)rm -f $@ && ar qcs $@ $^

$(B)/%.o: %.c
	$(call say,CC  )
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -c -o $@ $<

$(B)/gen/%.o: $(B)/gen/%.c
	$(call say,CC  )
	$(Q)$(CC) $(ALL_CFLAGS) -c -o $@ $<

# Text files become one table of {name, text} rows each.
$(B)/gen/kernels.c: $(sort $(wildcard cl/*.cl cl/*.h)) contrib/embed.awk
	@mkdir -p $(@D)
	$(Q)awk -v table=dr_kernel_files -f contrib/embed.awk $(filter cl/%,$^) > $@
$(B)/gen/scripts.c: $(sort $(wildcard src/queue/lua/*.lua)) contrib/embed.awk
	@mkdir -p $(@D)
	$(Q)awk -v table=dr_script_files -f contrib/embed.awk $(filter %.lua,$^) > $@
$(B)/gen/tunings.c: $(sort $(wildcard config/tunings/*.ini)) contrib/embed.awk
	@mkdir -p $(@D)
	$(Q)awk -v table=dr_tuning_files -f contrib/embed.awk $(filter %.ini,$^) > $@

# --- tests -------------------------------------------------------------------------------
TEST_SRC := $(sort $(wildcard $(addprefix tests/,$(addsuffix /test_*.c,unit ops golden full))))
TEST_BIN := $(TEST_SRC:%.c=$(B)/%)
TEST_LIB := $(patsubst %.c,$(B)/%.o,$(sort $(wildcard tests/lib/*.c)))

$(B)/tests/%: $(B)/tests/%.o $(TEST_LIB) $(B)/libdarkroom.a
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS) -o $@ $^ $(PKG_LIBS) -lcmocka

tests: $(TEST_BIN) $(B)/bench/bench

test: ## install what is missing, run unit, ops, golden and end-to-end tests
	sh contrib/deps.sh test
	$(MAKE) --no-print-directory all tests
	sh contrib/run-tests.sh $(B)

test-full: ## SD 1.5's full width against diffusers (gigabytes, minutes; needs torch)
	sh contrib/deps.sh test
	$(MAKE) --no-print-directory all tests
	sh contrib/test-full.sh $(B)

chaos: ## kill workers and Redis at every moment, 2,000 jobs under fire (half an hour)
	sh contrib/deps.sh test
	$(MAKE) --no-print-directory all
	sh contrib/chaos.sh $(B)

check: ## format, layers, doors, banned functions, kernel lint, cppcheck, settings table
	sh contrib/deps.sh test
	$(MAKE) --no-print-directory all
	sh contrib/check.sh $(B)

asan: ## all tests under address and undefined behaviour sanitizers
	sh contrib/deps.sh test
	$(MAKE) --no-print-directory B=build/asan CFLAGS="-O1 -g -fsanitize=address,undefined -fno-omit-frame-pointer" all tests
	sh contrib/run-tests.sh build/asan

bench: ## where the time of pictures goes, how it grows, a plot (BENCH_OPTIONS=--full-width)
	sh contrib/deps.sh test
	$(MAKE) --no-print-directory all $(B)/bench/bench
	sh bench/run.sh $(B) $(BENCH_OPTIONS)

bench-queue: ## what the queue costs a job, beside asynq and BullMQ (installs Go and Node)
	sh contrib/deps.sh test
	$(MAKE) --no-print-directory $(B)/bench/queue/noop
	sh bench/queue/run.sh $(B)

bench-peers: ## beside PyTorch/diffusers and OpenVINO on this machine (installs both, 7 GB, long)
	sh contrib/deps.sh test
	$(MAKE) --no-print-directory all $(B)/bench/peers/ours
	sh bench/peers/run.sh $(B) $(PEERS_OPTIONS)

demo: ## install, build, run a private Redis and a worker, make one picture
	sh contrib/deps.sh build
	$(MAKE) --no-print-directory all
	sh contrib/demo.sh $(B)

format: ## format the C sources in place
	clang-format-14 -i $$(git ls-files -co --exclude-standard '*.c' '*.h' ':!cl')

install: all ## install to PREFIX (default /usr/local)
	install -D $(B)/darkroom $(DESTDIR)$(PREFIX)/bin/darkroom
	install -D -m 644 config/darkroom.conf $(DESTDIR)$(PREFIX)/share/darkroom/darkroom.conf
	mkdir -p $(DESTDIR)$(PREFIX)/share/darkroom/demo-model
	cp -R contrib/demo-model/model/. $(DESTDIR)$(PREFIX)/share/darkroom/demo-model
	cp -R contrib/demo-model/lora $(DESTDIR)$(PREFIX)/share/darkroom/demo-model

clean: ## remove what was built
	rm -rf build

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

.PHONY: all test tests test-full chaos check asan bench bench-queue bench-peers demo format install clean help
.SECONDARY:
-include $(LIB_OBJ:.o=.d) $(CLI_OBJ:.o=.d) $(TEST_BIN:=.d) $(TEST_LIB:.o=.d)
-include $(wildcard $(B)/bench/*.d $(B)/bench/queue/*.d $(B)/bench/peers/*.d $(B)/tests/full/*.d)
