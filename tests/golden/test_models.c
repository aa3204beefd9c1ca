#include "../lib/golden.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "diffusion/models.h"

#include <CL/cl.h>
#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A worker's set of models: what is listed under which name, what is loaded and evicted,
 * and that pictures and memory come back as they were. */

#define MIB        ((size_t)1 << 20)
#define TINY       "tests/golden/tiny-sd1/model" /* 3.5 MiB of weights on the device */
#define DEMO       "contrib/demo-model/model"    /* 24.9 MiB */
#define WARM_SWAPS 10
#define SWAPS      50
#define GROWN_MAX  (4 * MIB) /* of the process, over all swaps */

/* --- a device whose memory is counted, and ends where a test says --- */

static size_t device_bytes, device_most, device_limit;

/* These two stand in front of the library's. */
cl_mem clCreateBuffer(cl_context context, cl_mem_flags flags, size_t size, void *host,
                      cl_int *rc)
{
    cl_mem (*real)(cl_context, cl_mem_flags, size_t, void *, cl_int *);
    *(void **)&real = dlsym(RTLD_NEXT, "clCreateBuffer");
    if (device_limit && device_bytes + size > device_limit) {
        *rc = CL_MEM_OBJECT_ALLOCATION_FAILURE;
        return NULL;
    }
    cl_mem m = real(context, flags, size, host, rc);
    device_bytes += m ? size : 0;
    device_most = device_bytes > device_most ? device_bytes : device_most;
    return m;
}

cl_int clReleaseMemObject(cl_mem m)
{
    cl_int (*real)(cl_mem);
    size_t bytes = 0;
    *(void **)&real = dlsym(RTLD_NEXT, "clReleaseMemObject");
    clGetMemObjectInfo(m, CL_MEM_SIZE, sizeof bytes, &bytes, NULL);
    device_bytes -= bytes; /* nobody retains any */
    return real(m);
}

/* --- folders of models --- */

typedef struct {
    golden *g;
    char dir[64]; /* what model.dir is set to; new for each test */
    dr_models *ms;
} fixture;

static void set(fixture *f, const char *key, const char *value)
{
    assert_int_equal(dr_conf_set(&f->g->conf, key, value, NULL), DR_OK);
}

static const char *in_dir(fixture *f, const char *name)
{
    return dr_arena_printf(f->g->mem, "%s/%s", f->dir, name);
}

static void link_to(fixture *f, const char *name, const char *target)
{
    char whole[DR_PATH_MAX];
    assert_non_null(realpath(target, whole));
    assert_int_equal(symlink(whole, in_dir(f, name)), 0);
}

/* A folder with this as its model_index.json; NULL: without one. */
static void make_folder(fixture *f, const char *name, const char *index)
{
    assert_int_equal(dr_mkdirs(in_dir(f, name), NULL), DR_OK);
    if (index)
        assert_int_equal(
            dr_file_write(
                in_dir(f, dr_arena_printf(f->g->mem, "%s/model_index.json", name)), index,
                strlen(index), NULL),
            DR_OK);
}

static int make_dir(void **state)
{
    fixture *f = *state;
    snprintf(f->dir, sizeof f->dir, "/tmp/darkroom-models.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    set(f, "model.dir", f->dir);
    set(f, "model.path", "");
    set(f, "model.memory_mb", "0");
    return 0;
}

static int remove_dir(void **state)
{
    fixture *f = *state;
    device_limit = 0;
    dr_models_close(f->ms);
    f->ms = NULL;
    golden_remove_model(f->dir);
    return 0;
}

static dr_models *open_models(fixture *f)
{
    dr_err err = { 0 };
    dr_models_close(f->ms);
    f->ms = NULL;
    if (dr_models_open(&f->ms, f->g->dev, &f->g->conf, &err))
        fail_msg("%s", err.message);
    return f->ms;
}

static void assert_no_models(fixture *f, dr_status want, const char *says)
{
    dr_err err = { 0 };
    dr_models *ms = NULL;
    assert_int_equal(dr_models_open(&ms, f->g->dev, &f->g->conf, &err), want);
    assert_non_null(strstr(err.message, says));
    assert_null(ms);
}

static void assert_names(dr_models *ms, bool resident_only, const char *want)
{
    dr_buf out = { 0 };
    dr_models_names_json(ms, resident_only, &out);
    assert_string_equal(out.data, want);
    dr_buf_free(&out);
}

/* What act(f) writes to the log. */
static void take_log(fixture *f, void (*act)(fixture *f), dr_buf *out)
{
    char path[] = "/tmp/darkroom-log.XXXXXX";
    int file = mkstemp(path), saved = dup(STDERR_FILENO);
    assert_true(file >= 0 && saved >= 0);
    dup2(file, STDERR_FILENO);
    act(f);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(file);
    dr_buf_clear(out);
    dr_buf_puts(out, "");
    assert_int_equal(dr_file_read(path, MIB, out, NULL), DR_OK);
    unlink(path);
}

static int times(const char *text, const char *word)
{
    int n = 0;
    for (; (text = strstr(text, word)); text += strlen(word))
        n++;
    return n;
}

/* --- the list --- */

static void list_again(fixture *f)
{
    open_models(f);
    dr_sleep_ms(1050);
    assert_int_equal(dr_models_find(f->ms, "unknown"), -1); /* reads the folder again */
}

/* What no job may name, whatever the folder holds. */
static const char *const evil[] = {
    "",        ".",
    "..",      "/",
    "./alpha", "alpha/",
    "alpha/.", "ALPHA",
    "alpha ",  "alph",
    "alpha\n", "../x",
    "empty",   "alpha/../zoo",
    "file",    ".hidden",
    "index",   "strange",
    "gone",    "*",
    "%s",      "alpha/model_index.json",
    "/etc",    "alpha\xff",
};

static void models_are_listed_by_name(void **state)
{
    fixture *f = *state;
    dr_buf log = { 0 };
    link_to(f, "zoo", TINY);
    link_to(f, "alpha", DEMO);
    link_to(f, ".hidden", TINY);
    link_to(f, "file", TINY "/model_index.json");
    make_folder(f, "empty", NULL);
    make_folder(f, "strange", "{\"_class_name\": \"FluxPipeline\"}");
    make_folder(f, "torn", "{");
    make_folder(f, "bad\xff", "{\"_class_name\": \"StableDiffusionPipeline\"}");
    assert_int_equal(symlink("nowhere", in_dir(f, "gone")), 0);
    take_log(f, list_again, &log);
    assert_int_equal(dr_models_count(f->ms), 2);
    assert_string_equal(dr_models_name(f->ms, 0), "alpha");
    assert_string_equal(dr_models_name(f->ms, 1), "zoo");
    assert_int_equal(dr_models_find(f->ms, NULL), 0);
    assert_int_equal(dr_models_find(f->ms, "alpha"), 0);
    assert_int_equal(dr_models_find(f->ms, "zoo"), 1);
    assert_false(dr_models_resident(f->ms, 0));
    assert_names(f->ms, false, "[\"alpha\",\"zoo\"]");
    assert_names(f->ms, true, "[]");
    /* Each is told once, though the folder was read twice. */
    assert_int_equal(times(log.data, "ev=model.left_out"), 4);
    assert_int_equal(times(log.data, "folder=\"strange\""), 1);
    assert_non_null(strstr(log.data, "FluxPipeline"));
    assert_int_equal(times(log.data, "folder=\"torn\""), 1);
    assert_int_equal(times(log.data, "folder=\"gone\""), 1);
    assert_non_null(strstr(log.data, "UTF-8"));
    for (size_t i = 0; i < DR_COUNT(evil); i++)
        if (dr_models_find(f->ms, evil[i]) != -1)
            fail_msg("name %zu (%s) was found", i, evil[i]);
    assert_int_equal(dr_models_find(f->ms, in_dir(f, "alpha")), -1);
    dr_buf_free(&log);
}

static void the_path_is_the_default(void **state)
{
    fixture *f = *state;
    char path[DR_PATH_MAX];
    link_to(f, "alpha", DEMO);
    link_to(f, "zoo", TINY);
    set(f, "model.path", in_dir(f, "zoo/"));
    open_models(f);
    assert_names(f->ms, false, "[\"zoo\",\"alpha\"]");
    assert_int_equal(dr_models_find(f->ms, NULL), 0);
    set(f, "model.path", "zoo"); /* a name in model.dir does, too */
    assert_int_equal(dr_model_path(path, &f->g->conf, NULL), DR_OK);
    assert_string_equal(path, in_dir(f, "zoo"));
    open_models(f);
    assert_names(f->ms, false, "[\"zoo\",\"alpha\"]");
    set(f, "model.path", "");
    assert_int_equal(dr_model_path(path, &f->g->conf, NULL), DR_OK);
    assert_string_equal(path, in_dir(f, "alpha"));
}

/* The same folder by another name is one model with two names. */
static void one_folder_is_one_model(void **state)
{
    fixture *f = *state;
    char other[] = "/tmp/darkroom-model.XXXXXX";
    golden_link_model(other, TINY, NULL);
    link_to(f, "alpha", DEMO);
    link_to(f, "zoo", other);
    set(f, "model.path", other);
    open_models(f);
    assert_int_equal(dr_models_count(f->ms), 2);
    assert_string_equal(dr_models_name(f->ms, 0), strrchr(other, '/') + 1);
    assert_int_equal(dr_models_find(f->ms, strrchr(other, '/') + 1), 0);
    assert_int_equal(dr_models_find(f->ms, "zoo"), 0);
    assert_int_equal(dr_models_find(f->ms, "alpha"), 1);
    golden_remove_model(other);
}

static void open_logged(fixture *f)
{
    open_models(f);
}

/* A folder of model.dir never takes the name of model.path's model. */
static void the_path_keeps_its_name(void **state)
{
    fixture *f = *state;
    dr_buf log = { 0 };
    link_to(f, "demo-model", TINY);
    link_to(f, "zoo", TINY);
    set(f, "model.path", DEMO);
    take_log(f, open_logged, &log);
    assert_names(f->ms, false, "[\"demo-model\",\"zoo\"]");
    assert_int_equal(times(log.data, "ev=model.left_out folder=\"demo-model\""), 1);
    dr_buf_free(&log);
}

static void the_demo_model_needs_no_setting(void **state)
{
    fixture *f = *state;
    char path[DR_PATH_MAX];
    set(f, "model.dir", "");
    /* It lies beside the program, which the tests are only in the build's own folder. */
    if (dr_model_path(path, &f->g->conf, NULL))
        set(f, "model.path", DEMO);
    open_models(f);
    assert_names(f->ms, false, "[\"demo-model\"]");
    assert_int_equal(dr_models_find(f->ms, "demo-model"), 0);
    assert_int_equal(dr_models_find(f->ms, "unknown"), -1);
}

static void no_models_is_an_error(void **state)
{
    fixture *f = *state;
    make_folder(f, "empty", NULL);
    assert_no_models(f, DR_ENOTFOUND, f->dir);
    set(f, "model.dir", "/nowhere/models");
    assert_no_models(f, DR_ENOTFOUND, "/nowhere/models: No such file");
    set(f, "model.dir", f->dir);
    set(f, "model.path", "nowhere");
    assert_no_models(f, DR_ENOTFOUND, "nowhere: no such model folder");
}

static void new_folders_are_found(void **state)
{
    fixture *f = *state;
    link_to(f, "zoo", TINY);
    open_models(f);
    const char *name = dr_models_name(f->ms, 0);
    for (int i = 0; i < 20; i++) { /* more than the list has room for at first */
        char later[32];
        snprintf(later, sizeof later, "later-%02d", i);
        link_to(f, later, DEMO);
    }
    assert_int_equal(dr_models_find(f->ms, "later-07"), -1); /* read a moment ago */
    dr_sleep_ms(1050);
    assert_int_equal(dr_models_find(f->ms, "later-07"), 8);
    assert_int_equal(dr_models_count(f->ms), 21);
    assert_int_equal(dr_models_find(f->ms, NULL), 0);
    assert_ptr_equal(dr_models_name(f->ms, 0), name);
    assert_string_equal(name, "zoo");
}

/* --- loading --- */

typedef struct {
    uint8_t rgb[64 * 64 * 3];
    int pictures;
} picture;

static void on_image(void *ctx, int64_t index, uint64_t seed, const dr_picture *pic)
{
    picture *p = ctx;
    assert_int_equal(index, 0);
    assert_int_equal(seed, 7);
    assert_int_equal(pic->width * pic->height * 3, sizeof p->rgb);
    memcpy(p->rgb, pic->rgb, sizeof p->rgb);
    p->pictures++;
}

static dr_status try_get(fixture *f, const char *name, dr_model **m, dr_err *err)
{
    int i = dr_models_find(f->ms, name);
    assert_true(i >= 0);
    return dr_models_get(f->ms, i, NULL, NULL, m, err);
}

static dr_model *get(fixture *f, const char *name)
{
    dr_model *m = NULL;
    dr_err err = { 0 };
    if (try_get(f, name, &m, &err))
        fail_msg("%s: %s", name, err.message);
    assert_string_equal(dr_model_name(m), name);
    return m;
}

/* A small picture by the model of this name. */
static picture paint(fixture *f, const char *name)
{
    static const dr_job job = { .id = "models",
                                .prompt = "a castle",
                                .negative_prompt = "",
                                .width = 64,
                                .height = 64,
                                .steps = 2,
                                .cfg_scale = 5,
                                .eta = NAN,
                                .seed = 7,
                                .n = 1 };
    picture p = { .pictures = 0 };
    const dr_observer obs = { .ctx = &p, .image = on_image };
    dr_model *m = get(f, name);
    dr_plan plan;
    dr_err err = { 0 };
    if (dr_plan_make(&plan, m, &job, &err) ||
        dr_pipeline_run(m, &job, &plan, &obs, NULL, &err))
        fail_msg("%s: %s", name, err.message);
    assert_int_equal(p.pictures, 1);
    return p;
}

static void pictures_outlive_a_swap(void **state)
{
    fixture *f = *state;
    link_to(f, "demo", DEMO);
    link_to(f, "tiny", TINY);
    set(f, "model.memory_mb", "26"); /* either, not both */
    open_models(f);
    picture tiny = paint(f, "tiny"), demo = paint(f, "demo");
    assert_names(f->ms, true, "[\"demo\"]");
    assert_memory_not_equal(tiny.rgb, demo.rgb, sizeof tiny.rgb);
    picture again = paint(f, "tiny");
    assert_names(f->ms, true, "[\"tiny\"]");
    assert_memory_equal(tiny.rgb, again.rgb, sizeof tiny.rgb);
    assert_false(dr_models_resident(f->ms, 0));
    assert_true(dr_models_resident(f->ms, 1));
}

static void the_least_recently_used_goes(void **state)
{
    fixture *f = *state;
    link_to(f, "a", TINY);
    link_to(f, "b", TINY);
    link_to(f, "c", TINY);
    set(f, "model.memory_mb", "8"); /* two of them */
    open_models(f);
    get(f, "a");
    get(f, "b");
    dr_model *a = get(f, "a");
    assert_names(f->ms, true, "[\"a\",\"b\"]");
    get(f, "c");
    assert_names(f->ms, true, "[\"a\",\"c\"]");
    assert_ptr_equal(get(f, "a"), a); /* was not loaded anew */
    assert_true(dr_models_make_room(f->ms, 0));
    assert_names(f->ms, true, "[\"a\"]");
    assert_false(dr_models_make_room(f->ms, 0));
    assert_true(dr_models_make_room(f->ms, -1));
    assert_names(f->ms, true, "[]");
}

typedef struct {
    double last;
    int calls;
} share;

static void on_share(void *ctx, double now)
{
    share *s = ctx;
    assert_true(now >= s->last && now <= 1);
    s->last = now;
    s->calls++;
}

static void loading_tells_its_progress(void **state)
{
    fixture *f = *state;
    share s = { 0 };
    dr_model *m;
    link_to(f, "tiny", TINY);
    open_models(f);
    assert_int_equal(dr_models_get(f->ms, 0, on_share, &s, &m, NULL), DR_OK);
    assert_true(s.calls > 100 && s.last > 0.999);
    s = (share){ 0 };
    assert_int_equal(dr_models_get(f->ms, 0, on_share, &s, &m, NULL), DR_OK);
    assert_int_equal(s.calls, 0);
}

/* A model that cannot fit is refused before anything is evicted for it. */
static void too_large_is_an_error(void **state)
{
    fixture *f = *state;
    dr_err err = { 0 };
    dr_model *m;
    link_to(f, "demo", DEMO);
    link_to(f, "tiny", TINY);
    set(f, "model.memory_mb", "24");
    open_models(f);
    get(f, "tiny");
    assert_int_equal(try_get(f, "demo", &m, &err), DR_ENOMEM);
    assert_string_equal(err.message, "model demo: its weights take 25 MiB on the device, "
                                     "the limit is 24 MiB; raise model.memory_mb");
    assert_names(f->ms, true, "[\"tiny\"]");
    paint(f, "tiny");
}

/* --- what goes wrong --- */

/* The limit says that both fit, the device does not. */
static void all_others_go_when_memory_is_out(void **state)
{
    fixture *f = *state;
    dr_err err = { 0 };
    dr_model *m;
    link_to(f, "demo", DEMO);
    link_to(f, "tiny", TINY);
    open_models(f);
    picture tiny = paint(f, "tiny");
    get(f, "demo");
    assert_names(f->ms, true, "[\"demo\",\"tiny\"]");
    dr_models_make_room(f->ms, -1);
    device_most = 0;
    get(f, "demo");
    dr_models_make_room(f->ms, -1);
    get(f, "tiny");
    device_limit = device_most; /* as much as demo alone takes while it loads */
    get(f, "demo");
    assert_names(f->ms, true, "[\"demo\"]");
    device_limit = 3 * MIB; /* not even tiny, alone */
    assert_int_equal(try_get(f, "tiny", &m, &err), DR_ENOMEM);
    assert_non_null(strstr(err.message, "CL_MEM_OBJECT_ALLOCATION_FAILURE"));
    assert_names(f->ms, true, "[]");
    device_limit = 0;
    picture again = paint(f, "tiny");
    assert_memory_equal(tiny.rgb, again.rgb, sizeof tiny.rgb);
}

static void a_folder_may_disappear(void **state)
{
    fixture *f = *state;
    dr_err err = { 0 };
    dr_model *m;
    link_to(f, "demo", DEMO);
    link_to(f, "tiny", TINY);
    open_models(f);
    unlink(in_dir(f, "tiny"));
    assert_int_equal(try_get(f, "tiny", &m, &err), DR_ENOTFOUND);
    assert_non_null(strstr(err.message, "tiny: no such model folder"));
    assert_int_equal(dr_models_count(f->ms), 2);
    get(f, "demo");
    link_to(f, "tiny", TINY);
    get(f, "tiny");
    unlink(in_dir(f, "tiny"));
    paint(f, "tiny"); /* is loaded already */
}

static void a_broken_model_spoils_nothing(void **state)
{
    fixture *f = *state;
    dr_err err = { 0 };
    dr_model *m;
    char torn[] = "/tmp/darkroom-model.XXXXXX";
    golden_link_model(torn, TINY, "vae");
    link_to(f, "torn", torn);
    link_to(f, "tiny", TINY);
    open_models(f);
    picture before = paint(f, "tiny");
    size_t bytes = device_bytes;
    for (int i = 0; i < 3; i++)
        assert_int_equal(try_get(f, "torn", &m, &err), DR_ENOTFOUND);
    assert_true(device_bytes <= bytes);
    assert_names(f->ms, true, "[\"tiny\"]");
    picture after = paint(f, "tiny");
    assert_memory_equal(before.rgb, after.rgb, sizeof before.rgb);
    golden_remove_model(torn);
}

/* --- memory --- */

/* Of two loaded models only the one in use holds memory for activations. */
static void activations_are_held_once(void **state)
{
    fixture *f = *state;
    link_to(f, "demo", DEMO);
    link_to(f, "tiny", TINY);
    open_models(f);
    paint(f, "tiny");
    paint(f, "demo");
    dr_models_make_room(f->ms, -1);
    size_t none = device_bytes;
    get(f, "tiny");
    size_t tiny = device_bytes - none;
    dr_models_make_room(f->ms, -1);
    get(f, "demo");
    size_t demo = device_bytes - none;
    assert_true(tiny >= 3 * MIB && tiny < 6 * MIB && demo >= 16 * MIB && demo < 32 * MIB);
    paint(f, "tiny");
    paint(f, "demo");
    assert_true(device_bytes > none + tiny + demo);
    get(f, "tiny");
    assert_int_equal(device_bytes, none + tiny + demo);
}

static size_t process_bytes(void)
{
    dr_buf text = { 0 };
    assert_int_equal(dr_file_read("/proc/self/statm", 4096, &text, NULL), DR_OK);
    size_t pages = strtoul(strchr(text.data, ' '), NULL, 10);
    dr_buf_free(&text);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void swaps_leave_nothing_behind(void **state)
{
    fixture *f = *state;
    static const char *const turn[] = { "tiny", "demo" };
    size_t before = 0, half = 0, device[2] = { 0 }, most = 0;
    uint64_t allocations[2] = { 0 };
    link_to(f, "demo", DEMO);
    link_to(f, "tiny", TINY);
    set(f, "model.memory_mb", "26");
    open_models(f);
    picture first[2] = { paint(f, "tiny"), paint(f, "demo") };
    for (int i = 0; i < SWAPS; i++) {
        uint64_t count = dr_alloc_count();
        picture p = paint(f, turn[i % 2]);
        count = dr_alloc_count() - count;
        assert_memory_equal(p.rgb, first[i % 2].rgb, sizeof p.rgb);
        if (i < WARM_SWAPS) {
            before = half = process_bytes();
            most = device_most;
            device[i % 2] = device_bytes;
            allocations[i % 2] = count;
        }
        assert_int_equal(device_bytes, device[i % 2]);
        assert_int_equal(count, allocations[i % 2]);
        if (i == (WARM_SWAPS + SWAPS) / 2)
            half = process_bytes();
    }
    assert_int_equal(device_most, most);
    size_t after = process_bytes();
    print_message("%d swaps: %zu KiB before, %zu KiB half way, %zu KiB after\n",
                  SWAPS - WARM_SWAPS, before >> 10, half >> 10, after >> 10);
#ifndef __SANITIZE_ADDRESS__ /* which keeps what is freed for a while */
    /* A leak grows all the time; on a busy machine a thread's heap may grow once. */
    assert_true(half < before + GROWN_MAX / 2 || after < half + GROWN_MAX / 2);
#endif
    dr_models_make_room(f->ms, -1);
    size_t none = device_bytes;
    get(f, "demo");
    get(f, "tiny");
    dr_models_close(f->ms);
    f->ms = NULL;
    assert_int_equal(device_bytes, none);
}

/* --- two threads --- */

typedef struct {
    fixture *f;
    atomic_bool end;
    int asked, wrong;
} asker;

static void *ask(void *ctx)
{
    asker *a = ctx;
    dr_models *ms = a->f->ms;
    dr_buf out = { 0 };
    while (!a->end) {
        int i = dr_models_find(ms, a->asked % 2 ? "demo" : "unknown");
        dr_buf_clear(&out);
        dr_models_names_json(ms, true, &out);
        a->wrong += i != (a->asked % 2 ? 0 : -1);
        a->wrong += strcmp(dr_models_name(ms, 1), "tiny") != 0;
        a->wrong += out.data[0] != '[' || out.data[out.len - 1] != ']';
        dr_models_resident(ms, a->asked % 2);
        a->asked++;
        dr_sleep_ms(1);
    }
    dr_buf_free(&out);
    return NULL;
}

static void another_thread_may_ask(void **state)
{
    fixture *f = *state;
    asker a = { .f = f };
    pthread_t thread;
    link_to(f, "demo", DEMO);
    link_to(f, "tiny", TINY);
    set(f, "model.memory_mb", "26");
    open_models(f);
    assert_int_equal(pthread_create(&thread, NULL, ask, &a), 0);
    for (int i = 0; i < 10; i++)
        get(f, i % 2 ? "demo" : "tiny");
    a.end = true;
    pthread_join(thread, NULL);
    assert_int_equal(a.wrong, 0);
    assert_true(a.asked > 10);
}

/* --- all --- */

static int setup(void **state)
{
    golden *g = golden_open("tests/golden/tiny-sd1");
    fixture *f = *state = dr_arena_alloc(g->mem, sizeof *f);
    golden_device(g);
    f->g = g;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    golden_close(f->g);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(models_are_listed_by_name),       TEST(the_path_is_the_default),
        TEST(one_folder_is_one_model),         TEST(the_path_keeps_its_name),
        TEST(the_demo_model_needs_no_setting), TEST(no_models_is_an_error),
        TEST(new_folders_are_found),           TEST(pictures_outlive_a_swap),
        TEST(the_least_recently_used_goes),    TEST(loading_tells_its_progress),
        TEST(too_large_is_an_error),           TEST(all_others_go_when_memory_is_out),
        TEST(a_folder_may_disappear),          TEST(a_broken_model_spoils_nothing),
        TEST(activations_are_held_once),       TEST(swaps_leave_nothing_behind),
        TEST(another_thread_may_ask),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
