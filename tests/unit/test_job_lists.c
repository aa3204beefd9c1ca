#include "test_job.h"

#include "base/rng.h"

#include <math.h>
#include <stdio.h>

/* LoRAs and ControlNets, in all the ways they are written. */

#define PNG64 "iVBORw0KGgoAAAANSUhEUg=="

static void assert_lora(const fixture *t, int i, const char *name, double strength,
                        double text_strength)
{
    const dr_lora_ref *l = &t->job->loras[i];
    assert_in_range(i, 0, t->job->n_loras - 1);
    if (strcmp(l->name, name) || l->strength != strength ||
        l->text_strength != text_strength)
        fail_msg("%s:%g:%g, not %s:%g:%g", l->name, l->strength, l->text_strength, name,
                 strength, text_strength);
}

/* The job {"prompt": "x", what} in JSON with ' for ". */
static dr_status decode_with(fixture *t, const char *what)
{
    char text[2048];
    snprintf(text, sizeof text, "{'prompt':'x',%s}", what);
    return decode_json(t, text);
}

/* --- LoRAs --------------------------------------------------------------------------- */

static void test_one_lora(void **state)
{
    static const struct {
        const char *json;
        double strength, text_strength;
    } cases[] = {
        { "'loras':['a']", 1, 1 },
        { "'loras':'a'", 1, 1 },
        { "'lora':'a:0.5'", 0.5, 0.5 },
        { "'loras':['a:0.5:0.25']", 0.5, 0.25 },
        { "'loras':['a:te=0.25:unet=0.5']", 0.5, 0.25 },
        { "'loras':['a:0.5:te=0.25']", 0.5, 0.25 },
        { "'loras':{'a':-0.5}", -0.5, -0.5 },
        { "'loras':[{'a':2}]", 2, 2 },
        { "'loras':{'name':'a'}", 1, 1 },
        { "'loras':[{'name':'a','strength':0.5}]", 0.5, 0.5 },
        { "'loras':[{'path':'a.safetensors','multiplier':10}]", 10, 10 },
        { "'loras':[{'model':'a','weight':-10}]", -10, -10 },
        { "'loras':[{'name':'a','scale':'0.5','text_strength':0}]", 0.5, 0 },
        { "'loras':[{'name':'a','text_strength':0.5}]", 1, 0.5 },
        { "'loras':[{'name':'a','model':0.5,'clip':0.25}]", 0.5, 0.25 }, /* the Horde's */
        { "'lora_weights':'a','lora_scale':0.5", 0.5, 0.5 },             /* Cog's */
        { "'lora_strength':0.5,'loras':[{'name':'a','text_strength':2}]", 0.5, 2 },
    };
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        if (decode_with(t, cases[i].json))
            fail_msg("%s: %s", cases[i].json, t->err.message);
        assert_int_equal(t->job->n_loras, 1);
        assert_lora(t, 0, "a", cases[i].strength, cases[i].text_strength);
        assert_int_equal(t->job->n_warnings, 0);
    }
}

static void test_several_loras(void **state)
{
    fixture *t = *state;
    assert_int_equal(decode_with(t, "'loras':['b',{'name':'a','scale':2},{'c':3,'d':4}]"),
                     DR_OK);
    assert_int_equal(t->job->n_loras, 4);
    assert_lora(t, 0, "b", 1, 1);
    assert_lora(t, 1, "a", 2, 2);
    assert_lora(t, 2, "c", 3, 3);
    assert_lora(t, 3, "d", 4, 4);
    /* The same one twice: both are kept, in their order. */
    assert_int_equal(decode_with(t, "'loras':['a:0.5','a:0.25']"), DR_OK);
    assert_int_equal(t->job->n_loras, 2);
    assert_lora(t, 1, "a", 0.25, 0.25);
    assert_int_equal(
        decode_plain(t, "lora", "a:0.5", "lora", "b", "lora", "{\"c\":2}", NULL), DR_OK);
    assert_int_equal(t->job->n_loras, 3);
    assert_lora(t, 0, "a", 0.5, 0.5);
    assert_lora(t, 2, "c", 2, 2);
    assert_int_equal(decode_plain(t, "loras", "[\"a\", {\"name\": \"b\"}]", NULL), DR_OK);
    assert_int_equal(t->job->n_loras, 2);
    assert_fails(t, decode_plain(t, "lora", "a", "loras", "b", NULL), "loras",
                 "given as lora and as loras");
    assert_int_equal(decode_with(t, "'loras':[],'lora':null,'lora_weights':''"), DR_OK);
    assert_int_equal(t->job->n_loras, 0);
    assert_int_equal(decode_with(t, "'loras':[{'name':'a','trigger':'x'}]"), DR_OK);
    assert_string_equal(t->job->warnings[0], "unknown field ignored: loras[0].trigger");
}

static void test_how_many_loras(void **state)
{
    fixture *t = *state;
    for (int n = DR_LORAS_MAX; n <= DR_LORAS_MAX + 1; n++)
        for (int tags = 0; tags < 2; tags++) {
            dr_buf b = { 0 };
            for (int i = 0; i < n; i++)
                dr_buf_printf(&b, "%s%s",
                              tags ? ""
                              : i  ? ","
                                   : "[",
                              tags ? "<lora:x>" : "\"x\"");
            dr_buf_puts(&b, tags ? "" : "]");
            const dr_field fields[] = { { "prompt", tags ? b.data : "x", tags ? b.len : 1 },
                                        { "loras", tags ? "[]" : b.data,
                                          tags ? 2 : b.len } };
            dr_status st = decode(t, fields, 2);
            dr_buf_free(&b);
            if (n > DR_LORAS_MAX)
                assert_fails(t, st, tags ? "prompt" : "loras",
                             "loras: more than 16; leave some out");
            else
                assert_int_equal(st, DR_OK);
            assert_int_equal(t->job->n_loras, DR_LORAS_MAX);
        }
}

static void test_bad_loras(void **state)
{
    static const struct {
        const char *json, *field, *message;
    } cases[] = {
        { "'loras':5", "loras", "loras 5: must be names, or maps with name and strength" },
        { "'loras':[5]", "loras", "must be names" },
        { "'loras':[[]]", "loras", "must be names" },
        { "'loras':[{'strength':1}]", "loras[0].name", "missing" },
        { "'loras':['a',{'name':'b','strength':11}]", "loras[1].strength",
          "loras[1].strength 11: must be a number in -10..10" },
        { "'loras':{'a':'strong'}", "loras[0].strength", "\"strong\": must be a number" },
        { "'loras':{'a':{}}", "loras[0].strength", "must be a number" },
        { "'loras':[{'name':'a','clip':-10.5}]", "loras[0].text_strength", "-10..10" },
        { "'loras':[{'name':'a','weight':1,'scale':2}]", "loras[0].strength",
          "given as weight and as scale with different values" },
        { "'loras':[{'name':'a','path':'b'}]", "loras[0].name", "given as name and as" },
        { "'loras':'../a'", "loras[0].name", "must be a name without" },
        { "'loras':{'a/b':1}", "loras[0].name", "must be a name without" },
        { "'loras':[{'name':'..'}]", "loras[0].name", "must be a name without" },
        { "'loras':['a\\nb']", "loras[0].name", "control characters" },
        { "'loras':[{'name':''}]", "loras[0].name", "empty" },
        { "'loras':['']", "loras[0].name", "empty" },
        { "'loras':['a:x']", "loras[0].strength", "\"x\": must be a number" },
        { "'loras':['a:']", "loras[0].strength", "\"\": must be a number" },
        { "'loras':['a:1:2:3']", "loras", "must be name:strength:text_strength" },
        { "'loras':['a:te=x']", "loras[0].text_strength", "must be a number" },
        { "'loras':['a:1:unet=2']", "loras[0].strength", "given as strength and as unet" },
        { "'loras':['a:te=1:te=2']", "te", "given twice" },
    };
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(cases); i++)
        assert_fails(t, decode_with(t, cases[i].json), cases[i].field, cases[i].message);
    char text[256];
    snprintf(text, sizeof text, "'loras':['%0*d']", DR_NAME_BYTES_MAX + 1, 0);
    assert_fails(t, decode_with(t, text), "loras[0].name", "129 bytes: must be at most");
}

static void test_tags(void **state)
{
    static const struct {
        const char *prompt, *left;
        int n;
        const char *name;
        double strength, text_strength;
    } cases[] = {
        { "a cat <lora:x:0.8>", "a cat ", 1, "x", 0.8, 0.8 },
        { "<lora:x>, a cat", ", a cat", 1, "x", 1, 1 },
        { "a <lora:x y.safetensors:0.5:0.25> cat", "a  cat", 1, "x y", 0.25, 0.5 },
        { "<lora:x:0.5:unet=2>", "", 1, "x", 2, 0.5 },
        { "<lora:x:unet=2:te=0.5>", "", 1, "x", 2, 0.5 },
        { "<lora:b:2><lora:x:te=0:unet=-1>", "", 2, "x", -1, 0 },
        { "<lora:x:te=0.5>", "", 1, "x", 0.5, 0.5 },
        { "<lora:x:unet=0.5>", "", 1, "x", 0.5, 1 },
        { "<lora:x:0.5:te=0.25>", "", 1, "x", 0.5, 0.25 },
        { "<lora:x:1e-1>", "", 1, "x", 0.1, 0.1 },
        { "gr\xc3\xbcn <lora:\xc3\xbc:1>!", "gr\xc3\xbcn !", 1, "\xc3\xbc", 1, 1 },
        { "a lora:x:1 <hypernet:x:1> <LORA:x:1>", "a lora:x:1 <hypernet:x:1> <LORA:x:1>", 0,
          NULL, 0, 0 },
    };
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        dr_field f = { "prompt", cases[i].prompt, strlen(cases[i].prompt) };
        if (decode(t, &f, 1))
            fail_msg("%s: %s", cases[i].prompt, t->err.message);
        assert_string_equal(t->job->prompt, cases[i].left);
        assert_int_equal(t->job->n_loras, cases[i].n);
        if (cases[i].n)
            assert_lora(t, cases[i].n - 1, cases[i].name, cases[i].strength,
                        cases[i].text_strength);
    }
    /* After those of the list; the negative prompt's last; a prompt given twice counts
     * once. */
    assert_int_equal(decode_plain(t, "negative", "bad <lora:n:0.5>", "loras", "[\"l\"]",
                                  "lora_scale", "0.3", NULL),
                     DR_OK);
    assert_string_equal(t->job->negative_prompt, "bad ");
    assert_int_equal(t->job->n_loras, 2);
    assert_lora(t, 0, "l", 0.3, 0.3);
    assert_lora(t, 1, "n", 0.5, 0.5);
    assert_int_equal(
        decode_json(t, "{'prompt':'<lora:t><lora:u:unet=2>','lora_scale':0.3}"), DR_OK);
    assert_lora(t, 0, "t", 0.3, 0.3);
    assert_lora(t, 1, "u", 2, 0.3);
    dr_field twice[] = { { "prompt", "<lora:p>", 8 }, { "prompt", "<lora:p>", 8 } };
    assert_int_equal(decode(t, twice, 2), DR_OK);
    assert_int_equal(t->job->n_loras, 1);
}

static void test_bad_tags(void **state)
{
    static const struct {
        const char *prompt, *message;
    } cases[] = {
        { "a <lora:x", "prompt: <lora: at byte 2 has no \">\"; close it or take it out" },
        { "<lora:x:1> b <lora:", "<lora: at byte 13 has no" },
        { "<lora:>", "<lora:...> at byte 0: loras[0].name: empty" },
        { "b <lora:x:y>",
          "prompt: <lora:...> at byte 2: loras[0].text_strength \"y\": must be a" },
        { "<lora:x:>", "must be a number in -10..10" },
        { "<lora:x:11>", "must be a number in -10..10" },
        { "<lora:x:1:2:3>", "must be name:text_strength:strength" },
        { "<lora:../x:1>", "must be a name without" },
        { "<lora:a/b>", "must be a name without" },
    };
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        dr_field f = { "prompt", cases[i].prompt, strlen(cases[i].prompt) };
        assert_fails(t, decode(t, &f, 1), "prompt", cases[i].message);
        if (strncmp(cases[i].message, "prompt", 6))
            assert_fails(t, decode_plain(t, "negative", cases[i].prompt, NULL),
                         "negative_prompt", cases[i].message);
    }
}

/* --- ControlNets --------------------------------------------------------------------- */

static void assert_control(const fixture *t, int i, const char *name, double strength,
                           double start, double end, bool canny)
{
    const dr_control_ref *c = &t->job->controls[i];
    assert_in_range(i, 0, t->job->n_controls - 1);
    assert_string_equal(c->name, name);
    assert_true(c->strength == strength && c->start == start && c->end == end);
    assert_int_equal(c->canny, canny);
    assert_int_equal(c->image.n, c->image.key ? 0 : 16);
}

static void test_one_control(void **state)
{
    static const struct {
        const char *json;
        double strength, start, end;
        bool canny;
    } cases[] = {
        { "'controls':[{'name':'a','image':'" PNG64 "'}]", 1, 0, 1, false },
        { "'controls':{'model':'a.safetensors','image':'input:a:b'}", 1, 0, 1, false },
        { "'controlnet':{'name':'a','image':'input:a:b','strength':10}", 10, 0, 1, false },
        { "'controlnets':[{'name':'a','input_image':'input:a:b','weight':0}]", 0, 0, 1,
          false },
        { "'control':{'name':'a','image':'input:a:b','scale':0.5,'start':0.25,'end':0.5,"
          "'preprocessor':'canny'}",
          0.5, 0.25, 0.5, true },
        { "'controls':[{'name':'a','control_image':'input:a:b','conditioning_scale':0.5,"
          "'guidance_start':0.25,'guidance_end':0.5,'module':'none'}]",
          0.5, 0.25, 0.5, false },
        { "'control_name':'a','control_image':'" PNG64 "','control_strength':0.5,"
          "'control_start':0.25,'control_end':0.5,'control_preprocessor':'canny'",
          0.5, 0.25, 0.5, true },
        { "'controlnet':'a','control_image':'input:a:b',"
          "'controlnet_conditioning_scale':0.5,'control_guidance_start':0.25,"
          "'control_guidance_end':0.5",
          0.5, 0.25, 0.5, false },
        { "'controlnet_model':'a','controlnet_image':'input:a:b',"
          "'controlnet_strength':0.5,'controlnet_start':0.25,'controlnet_end':0.5,"
          "'controlnet_module':'Canny'",
          0.5, 0.25, 0.5, true },
        { "'control_model':'a','control_image':'input:a:b','controlnet_scale':2,"
          "'controlnet_preprocessor':'canny'",
          2, 0, 1, true },
        { "'controlnet_name':'a','control_image':'input:a:b','conditioning_scale':2", 2, 0,
          1, false },
    };
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        if (decode_with(t, cases[i].json))
            fail_msg("%s: %s", cases[i].json, t->err.message);
        assert_int_equal(t->job->n_controls, 1);
        assert_control(t, 0, "a", cases[i].strength, cases[i].start, cases[i].end,
                       cases[i].canny);
        assert_int_equal(t->job->n_warnings, 0);
        assert_int_equal(t->job->task, DR_TXT2IMG);
    }
}

static void test_several_controls(void **state)
{
    fixture *t = *state;
    char text[1024] = "'control_name':'flat','control_image':'input:a:b','controls':[";
    const char *one = "{'name':'a','image':'input:a:b'}";
    for (int i = 1; i < DR_CONTROLS_MAX; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", one,
                 i + 1 < DR_CONTROLS_MAX ? "," : "]");
    assert_int_equal(decode_with(t, text), DR_OK);
    assert_int_equal(t->job->n_controls, DR_CONTROLS_MAX);
    assert_control(t, DR_CONTROLS_MAX - 1, "flat", 1, 0, 1, false);
    text[strlen(text) - 1] = 0;
    snprintf(text + strlen(text), sizeof text - strlen(text), ",%s]", one);
    assert_fails(t, decode_with(t, text), "controls",
                 "controls: more than 4; leave some out");
    assert_int_equal(decode_plain(t, "controls", "{\"name\":\"a\",\"image\":\"" PNG64 "\"}",
                                  "controls", "[{\"name\":\"b\",\"image\":\"" PNG64 "\"}]",
                                  NULL),
                     DR_OK);
    assert_int_equal(t->job->n_controls, 2);
    assert_control(t, 1, "b", 1, 0, 1, false);
    assert_int_equal(decode_with(t, "'controls':[],'controlnet':null,'control':{}"), DR_OK);
    assert_int_equal(t->job->n_controls, 0);
    assert_int_equal(
        decode_with(t, "'controls':{'name':'a','image':'input:a:b','pixel_perfect':true}"),
        DR_OK);
    assert_string_equal(t->job->warnings[0],
                        "unknown field ignored: controls[0].pixel_perfect");
}

static void test_bad_controls(void **state)
{
#define A "'name':'a','image':'input:a:b'"
    static const struct {
        const char *json, *field, *message;
    } cases[] = {
        { "'controls':5", "controls", "controls 5: must be maps with name and image" },
        { "'controls':['a']", "controls", "must be maps" },
        { "'controls':[{'name':'a'}]", "controls[0].image", "missing; send it" },
        { "'controls':[{'image':'input:a:b'}]", "controls[0].name", "missing; send it" },
        { "'controls':[{" A "},{" A ",'strength':-1}]", "controls[1].strength",
          "controls[1].strength -1: must be a number in 0..10" },
        { "'controls':[{" A ",'strength':10.5}]", "controls[0].strength", "0..10" },
        { "'controls':[{" A ",'start':2}]", "controls[0].start", "0..1" },
        { "'controls':[{" A ",'end':-1}]", "controls[0].end", "0..1" },
        { "'controls':[{" A ",'start':0.5,'end':0.5}]", "controls",
          "controls[0].start 0.5 must be below controls[0].end, which is 0.5" },
        { "'controls':[{" A ",'module':'depth'}]", "controls[0].preprocessor",
          "\"depth\": this version knows none, canny" },
        { "'controls':[{'name':'a/b','image':'input:a:b'}]", "controls[0].name",
          "must be a name without" },
        { "'controls':[{'name':'a','image':'R0lGODlhAQABAAAAACw='}]", "controls[0].image",
          "controls[0].image: a GIF; send PNG, JPEG or WebP" },
        { "'control_image':'input:a:b'", "control_name", "control_name: missing" },
        { "'control':'a'", "control_image", "control_image: missing" },
        { "'control':'a','control_image':'!'", "control_image", "is not base64" },
        { "'control':'a','control_name':'b'", "control_name", "different values" },
        { "'controlnet_scale':11", "control_strength", "control_strength 11: must be" },
        { "'controls':{" A "},'controlnet':{" A "}", "controls",
          "given as controls and as controlnet" },
    };
    fixture *t = *state;
    for (size_t i = 0; i < DR_COUNT(cases); i++)
        assert_fails(t, decode_with(t, cases[i].json), cases[i].field, cases[i].message);
    /* NaN can only come in msgpack: {"prompt":"x","loras":{"a":NaN}} */
    static const char nan_bytes[] = "\x82\xa6prompt\xa1x\xa5loras\x81\xa1"
                                    "a\xcb\x7f\xf8\0\0\0\0\0\0";
    assert_fails(t, decode_as(t, "job", nan_bytes, sizeof nan_bytes - 1), "loras",
                 "loras: NaN and infinity are not accepted");
}

/* --- Any bytes ----------------------------------------------------------------------- */

static const char rich[] =
    "{\"prompt\":\"a <lora:x:0.5:1> cat\",\"loras\":[\"b:1\",{\"name\":\"c\",\"clip\":2},"
    "{\"d\":0.5}],\"controls\":[{\"name\":\"e\",\"image\":\"" PNG64 "\",\"start\":0.1,"
    "\"end\":0.9,\"module\":\"canny\"}],\"image\":\"data:image/png;base64," PNG64 "\","
    "\"mask\":{\"image\":\"input:job:m\",\"blur\":3,\"padding\":8},\"sigmas\":[9,3.5,1,0],"
    "\"hires\":{\"scale\":1.5,\"steps\":3},\"output\":{\"format\":\"png\"},"
    "\"subseed\":7,\"subseed_strength\":0.5,\"cfg_start\":0.1}";

static void assert_picture_within(const dr_picture_ref *p)
{
    assert_true(!p->key || !p->n);
    assert_in_range(p->n, 0, sizeof rich);
    if (p->n)
        assert_true(p->n >= 3 && (*(const unsigned char *)p->bytes == 0x89 ||
                                  *(const unsigned char *)p->bytes == 0xff ||
                                  *(const unsigned char *)p->bytes == 'R'));
    if (p->key)
        assert_non_null(strstr(p->key, "input:"));
}

/* What decode promises of any job it accepts. */
static void assert_within_limits(const dr_job *job)
{
    assert_in_range(job->n_loras, 0, DR_LORAS_MAX);
    for (int i = 0; i < job->n_loras; i++) {
        const dr_lora_ref *l = &job->loras[i];
        assert_in_range(strlen(l->name), 1, DR_NAME_BYTES_MAX);
        assert_true(!strchr(l->name, '/') && !strstr(l->name, ".."));
        assert_true(fabs(l->strength) <= 10 && fabs(l->text_strength) <= 10);
    }
    assert_in_range(job->n_controls, 0, DR_CONTROLS_MAX);
    for (int i = 0; i < job->n_controls; i++) {
        const dr_control_ref *c = &job->controls[i];
        assert_true(c->image.n || c->image.key);
        assert_picture_within(&c->image);
        assert_true(c->strength >= 0 && c->strength <= 10);
        assert_true(c->start >= 0 && c->start < c->end && c->end <= 1);
    }
    assert_picture_within(&job->init.image);
    assert_picture_within(&job->mask.image);
    bool init = job->init.image.n || job->init.image.key;
    bool mask = job->mask.image.n || job->mask.image.key;
    assert_int_equal(job->task, init ? mask ? DR_INPAINT : DR_IMG2IMG : DR_TXT2IMG);
    assert_true(job->init.strength >= 0 && job->init.strength <= 1);
    assert_true(job->mask.blur >= 0 && job->mask.blur <= 256);
    assert_in_range(job->mask.padding, 0, DR_SIZE_MAX);
    assert_true(job->hires.scale >= 0 && job->hires.scale <= 4);
    assert_in_range(job->n_sigmas, 0, DR_STEPS_MAX);
    for (int64_t i = 0; i < job->n_sigmas; i++)
        assert_true(job->sigmas[i] >= 0 && (!i || job->sigmas[i] < job->sigmas[i - 1]));
    assert_true(job->cfg_start < job->cfg_end);
    assert_in_range(job->n_warnings, 0, DR_WARNINGS_MAX);
    assert_null(strstr(job->prompt, "<lora:"));
}

static void test_mutations(void **state)
{
    static const char alphabet[] = "{}[]\",:\\<>=;/.0123456789-eE \tainput\x01\x80\xff";
    fixture *t = *state;
    char b[1024];
    int accepted = 0;
    assert_int_equal(decode_as(t, "json", rich, sizeof rich - 1), DR_OK);
    assert_int_equal(t->job->n_loras, 4);
    assert_within_limits(t->job);
    for (uint32_t i = 0; i < 200000; i++) {
        size_t n = mutate(b, rich, alphabet, i, 77);
        if (decode_as(t, "json", b, n) == DR_OK) {
            accepted++;
            assert_within_limits(t->job);
        }
    }
    assert_in_range(accepted, 5000, 190000); /* both ways were taken */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_one_lora),       TEST(test_several_loras),
        TEST(test_how_many_loras), TEST(test_bad_loras),
        TEST(test_tags),           TEST(test_bad_tags),
        TEST(test_one_control),    TEST(test_several_controls),
        TEST(test_bad_controls),   TEST(test_mutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
