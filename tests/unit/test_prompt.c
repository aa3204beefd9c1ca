#include "base/utf8.h"
#include "diffusion/prompt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The language of prompts: the examples of A1111's documentation, and what must hold for
 * any text. */

typedef struct {
    dr_arena *mem;
    dr_reading r;
} kit;

static int setup(void **state)
{
    static kit k;
    k.mem = dr_arena_new();
    *state = &k;
    return k.mem ? 0 : -1;
}

static int teardown(void **state)
{
    kit *k = *state;
    dr_arena_free(k->mem);
    return 0;
}

static dr_reading *reading(kit *k)
{
    dr_arena_reset(k->mem);
    k->r = (dr_reading){ .mem = k->mem, .field = "prompt" };
    return &k->r;
}

/* --- steps --- */

/* "3:a |10:a b" : until step 3 "a ", until step 10 "a b". */
static void schedule_text(char *out, size_t size, const dr_prompt *p, int64_t steps)
{
    size_t n = 0;
    *out = 0;
    for (int64_t i = 0; i < steps && n < size; i++)
        if (i + 1 == steps || p->at[i + 1] != p->at[i])
            n += (size_t)snprintf(out + n, size - n, "%s%lld:%s", n ? "\n" : "",
                                  (long long)i + 1, p->text[p->at[i]]);
}

static const struct {
    const char *source;
    int64_t steps;
    const char *schedule, *note; /* note: part of the only one; NULL: none */
} schedules[] = {
    /* A1111's documentation. */
    { "test", 10, "10:test", NULL },
    { "a [b:3]", 10, "3:a \n10:a b", NULL },
    { "a [b: 3]", 10, "3:a \n10:a b", NULL },
    { "a [b: 3 ]", 10, "3:a \n10:a b", NULL },
    { "a [[[b]]:2]", 10, "2:a \n10:a [[b]]", NULL },
    { "[(a:2):3]", 10, "3:\n10:(a:2)", NULL },
    { "a [b : c : 1] d", 10, "1:a b  d\n10:a  c  d", NULL },
    { "a[b:[c:d:2]:1]e", 10, "1:abe\n2:ace\n10:ade", NULL },
    { "a [unbalanced", 10, "10:a [unbalanced", NULL },
    { "a [b:.5] c", 10, "5:a  c\n10:a b c", NULL },
    { "((a][:b:c [d:3]", 10, "3:((a][:b:c \n10:((a][:b:c d", NULL },
    { "[a|(b:1.1)]", 4, "1:a\n2:(b:1.1)\n3:a\n4:(b:1.1)", NULL },
    { "[fe|]male", 3, "1:female\n2:male\n3:female", NULL },
    { "[fe|||]male", 5, "1:female\n4:male\n5:female", NULL },
    { "a [red:green:0.5] apple", 20, "10:a red apple\n20:a green apple", NULL },
    { "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75]"
      "[ in foreground::0.6][ in background:0.25] [shoddy:masterful:0.5]",
      100,
      "25:fantasy landscape with a mountain and an oak in foreground shoddy\n"
      "50:fantasy landscape with a lake and an oak in foreground in background shoddy\n"
      "60:fantasy landscape with a lake and an oak in foreground in background masterful\n"
      "75:fantasy landscape with a lake and an oak in background masterful\n"
      "100:fantasy landscape with a lake and a christmas tree in background masterful",
      NULL },
    /* Numbers: with a point a share, rounded down, without one steps. */
    { "[a:b:0.999]", 10, "9:a\n10:b", NULL },
    { "[a:b:1.0]", 10, "10:a", "changes after the last of 10 steps" },
    { "[a:b:1]", 10, "1:a\n10:b", NULL },
    { "[a:b:2.7]", 10, "10:a", "changes after the last of 10 steps" },
    { "[a:b:1.]", 10, "10:a", "changes after the last of 10 steps" },
    { "[a:b:0.]", 10, "10:b", "changes before the first" },
    { "[a:b:+4]", 10, "4:a\n10:b", NULL },
    { "[a:b:-1]", 10, "10:b", "changes before the first of 10 steps" },
    { "[a:b:0]", 10, "10:b", "[a:b:0] changes before the first" },
    { "[a:b:30]", 10, "10:a", "[a:b:30] changes after the last" },
    { "[a:b:99999999999999999999]", 10, "10:a", "changes after the last" },
    { "[a::2]", 3, "2:a\n3:", NULL },
    { "[:a:2]", 3, "2:\n3:a", NULL },
    { "[a:3:4]", 9, "4:a\n9:3", NULL },
    /* Not numbers, so text, for the weights to read. */
    { "[a:b]", 10, "10:[a:b]", NULL },
    { "[a:b:x]", 10, "10:[a:b:x]", NULL },
    { "[a:b:1x]", 10, "10:[a:b:1x]", NULL },
    { "[a:b:.]", 10, "10:[a:b:.]", NULL },
    { "[a:b:nan]", 10, "10:[a:b:nan]", NULL },
    { "[a:b:0x4]", 10, "10:[a:b:0x4]", NULL },
    { "[a:b:c:4]", 10, "10:[a:b:c:4]", NULL },
    { "[a|b:4]", 10, "10:[a|b:4]", NULL },
    { "[a|b", 10, "10:[a|b", NULL },
    { "a | b] c) : d", 10, "10:a | b] c) : d", NULL },
    /* Escapes are kept for the weights and hide brackets. */
    { "\\[a:b:0.5\\]", 10, "10:\\[a:b:0.5\\]", NULL },
    { "[a\\:b:c:0.5]", 10, "5:a\\:b\n10:c", NULL },
    { "[a\\|b|c]", 2, "1:a\\|b\n2:c", NULL },
    { "end\\", 10, "10:end\\", NULL },
    /* Within and around weights and each other. */
    { "([a:b:2]:1.3) c", 4, "2:(a:1.3) c\n4:(b:1.3) c", NULL },
    { "[[a|b]:c:2]", 4, "1:a\n2:b\n4:c", NULL },
    { "[[a:b:2]|c]", 4, "1:a\n2:c\n3:b\n4:c", NULL },
    { "[a|b|c]", 2, "1:a\n2:b", "has 3 texts for 2 steps" },
    { "[a|b]", 1, "1:a", "[a|b] has 2 texts for 1 steps" },
    { "[a:b:0.5]", 1, "1:b", "changes before the first of 1 steps" },
    { "a cat AND a dog", 1, "1:a cat AND a dog", "AND does not compose" },
    { "LAND and SAND_", 1, "1:LAND and SAND_", NULL },
    { "", 5, "5:", NULL },
    { "[]", 5, "5:[]", NULL },
    { "[|]", 5, "5:", NULL },
};

/* The second pass of so many steps. */
static const struct {
    const char *source;
    int64_t steps, second;
    const char *schedule, *note;
} seconds[] = {
    /* A1111's documentation. */
    { "a [b:.5] c", 10, 10, "10:a b c", NULL },
    { "a [b:1.5] c", 10, 10, "5:a  c\n10:a b c", NULL },
    /* Numbers count on. */
    { "[a:b:15]", 10, 20, "5:a\n20:b", NULL },
    { "[a:b:10]", 10, 20, "20:b", NULL },
    { "[a:b:7]", 10, 20, "20:b", NULL },
    { "[a:b:1.0]", 10, 20, "20:b", NULL },
    { "[a:b:1.999]", 10, 20, "19:a\n20:b", NULL },
    { "[a:b:2.0]", 10, 20, "20:a", "changes after the last of 30 steps" },
    { "[a:b:30]", 10, 20, "20:a", "changes after the last of 30 steps" },
    { "[a:b:0]", 10, 20, "20:b", "changes before the first of 30 steps" },
    /* Cycles begin anew. */
    { "[a|b]", 3, 2, "1:a\n2:b", NULL },
    { "[a|b|c]", 3, 2, "1:a\n2:b", NULL },
    { "[[a:b:1.5]|c]", 9, 4, "1:a\n2:c\n3:b\n4:c", NULL },
    { "a cat", 10, 20, "20:a cat", NULL },
};

static void check_schedule(kit *k, const char *source, dr_prompt_steps steps,
                           const char *schedule, const char *note)
{
    char have[1024];
    dr_err err = { 0 };
    dr_prompt p;
    dr_reading *r = reading(k);
    assert_int_equal(dr_prompt_read(&p, r, source, steps, &err), DR_OK);
    schedule_text(have, sizeof have, &p, steps.steps[steps.pass]);
    if (strcmp(have, schedule) != 0)
        fail_msg("%s:\n%s\ninstead of\n%s", source, have, schedule);
    if (r->n != (note != NULL) || (r->n && !strstr(r->note[0], note)))
        fail_msg("%s: %d notes, \"%s\"", source, r->n, r->n ? r->note[0] : "");
}

static void texts_of_each_step(void **state)
{
    for (size_t i = 0; i < sizeof schedules / sizeof *schedules; i++)
        check_schedule(*state, schedules[i].source,
                       (dr_prompt_steps){ .steps = { schedules[i].steps } },
                       schedules[i].schedule, schedules[i].note);
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++)
        check_schedule(*state, seconds[i].source,
                       (dr_prompt_steps){ .steps = { seconds[i].steps, seconds[i].second },
                                          .pass = 1 },
                       seconds[i].schedule, seconds[i].note);
}

static dr_status read_over(dr_prompt *out, dr_reading *r, const char *source, int64_t steps,
                           dr_err *err)
{
    return dr_prompt_read(out, r, source, (dr_prompt_steps){ .steps = { steps } }, err);
}

/* Equal texts are one, however often they come. */
static void texts_are_told_apart_once(void **state)
{
    kit *k = *state;
    dr_prompt p;
    assert_int_equal(read_over(&p, reading(k), "[a|b|a] [c:d:500]", 1000, NULL), DR_OK);
    assert_int_equal(p.n, 4);
    assert_string_equal(p.text[p.at[0]], "a c");
    assert_string_equal(p.text[p.at[1]], "b c");
    assert_int_equal(p.at[2], p.at[0]);
    assert_string_equal(p.text[p.at[999]], "a d");
}

static void too_many_texts_are_refused(void **state)
{
    kit *k = *state;
    dr_err err = { 0 };
    dr_prompt p;
    static const char most[] = "[a|b|c|d|e|f|g|h][1|2|3|4|5|6|7]"; /* 56 */
    static const char more[] = "[a|b|c|d|e|f|g|h][1|2|3|4|5|6|7|8|9]";
    assert_int_equal(read_over(&p, reading(k), most, 1000, &err), DR_OK);
    assert_int_equal(p.n, 56);
    assert_int_equal(read_over(&p, reading(k), more, 1000, &err), DR_EINVAL);
    assert_string_equal(err.field, "prompt");
    assert_non_null(strstr(err.message, "more than 64 different texts over 1000 steps"));
    assert_int_equal(read_over(&p, reading(k), more, 64, &err), DR_OK);
}

/* --- weights --- */

/* "a \1|important\1.1" would be hard to read: stretches as "[weight text]", BREAK as "/".
 */
static void stretches_text(char *out, size_t size, const dr_stretch *s, int n)
{
    size_t len = 0;
    *out = 0;
    for (int i = 0; i < n && len < size; i++)
        len += (size_t)(s[i].is_break ? snprintf(out + len, size - len, "/")
                                      : snprintf(out + len, size - len, "{%.17g|%s}",
                                                 s[i].weight, s[i].text));
}

static const struct {
    const char *source, *stretches, *note;
} weights[] = {
    /* A1111's documentation. */
    { "normal text", "{1|normal text}", NULL },
    { "an (important) word", "{1|an }{1.1000000000000001|important}{1| word}", NULL },
    { "(unbalanced", "{1.1000000000000001|unbalanced}", NULL },
    { "\\(literal\\]", "{1|(literal]}", NULL },
    { "(unnecessary)(parens)", "{1.1000000000000001|unnecessaryparens}", NULL },
    { "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
      "{1|a }{1.5730000000000004|house}{1.1000000000000001| }{1|on}{1.1000000000000001| a }"
      "{0.55000000000000004|hill}{1.1000000000000001|, sun, }{1.4641000000000006|sky}"
      "{1.1000000000000001|.}",
      NULL },
    { "((a))", "{1.2100000000000002|a}", NULL },
    { "[a]", "{0.90909090909090906|a}", NULL },
    { "[[a]]", "{0.82644628099173545|a}", NULL },
    { "(a:1.5)", "{1.5|a}", NULL },
    { "(a: 1.5 )", "{1.5|a}", NULL },
    { "(a:.5)(b:+2)(c:-1)", "{0.5|a}{2|b}{-1|c}", NULL },
    { "(a:1) b", "{1|a b}", NULL },
    { "", "{1|}", NULL },
    { "()", "{1|}", NULL },
    /* Escapes; a backslash before anything else is dropped. */
    { "\\( \\) \\[ \\] \\\\ \\n \\", "{1|( ) [ ] \\ n }", NULL },
    { "(a\\):1.5)", "{1.5|a)}", NULL },
    /* Brackets that do not balance. */
    { "a) b] :1.2) c", "{1|a) b] :1.2) c}", NULL },
    { "[a", "{0.90909090909090906|a}", NULL },
    { "(a]", "{1.1000000000000001|a]}", NULL },
    { "([a)]", "{1|a}", NULL },
    /* No weights: text. */
    { "(word:abc)", "{1.1000000000000001|word:abc}", "\":abc\" is no weight" },
    { "(word:1.2.3)", "{1.1000000000000001|word:1.2.3}", "\":1.2.3\" is no weight" },
    { "(word:)", "{1.1000000000000001|word:}", "\":\" is no weight" },
    { "(word:1e9)", "{1.1000000000000001|word:1e9}", "no weight" },
    { "(word:5000)", "{1.1000000000000001|word:5000}", "no weight (a number up to 1000)" },
    { "(a:b (c:1.2):1.3)", "{1.3|a:b }{1.5600000000000001|c}", NULL },
    { "ratio 16:9 [a:b]", "{1|ratio 16:9 }{0.90909090909090906|a:b}", NULL },
    /* Products are kept in bounds. */
    { "((a:900):900)", "{1000|a}", NULL },
    { "((a:-900):900)", "{-1000|a}", NULL },
    /* BREAK */
    { "a BREAK b", "{1|a}/{1|b}", NULL },
    { "a BREAK", "{1|a}/", NULL },
    { "BREAK", "/", NULL },
    { "a\nBREAK\nBREAK b", "{1|a}//{1|b}", NULL },
    { "(a BREAK b:1.5)", "{1.5|a}/{1.5|b}", NULL },
    { "aBREAK BREAKb BREAK_ \xc3\xa9"
      "BREAK",
      "{1|aBREAK BREAKb BREAK_ \xc3\xa9"
      "BREAK}",
      NULL },
    { "(a)BREAK(b)", "{1.1000000000000001|a}/{1.1000000000000001|b}", NULL },
    { "break", "{1|break}", NULL },
};

static void weights_of_each_stretch(void **state)
{
    kit *k = *state;
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
        char have[1024];
        dr_stretch *s;
        int n;
        dr_reading *r = reading(k);
        assert_int_equal(dr_prompt_weigh(&s, &n, r, weights[i].source, NULL), DR_OK);
        stretches_text(have, sizeof have, s, n);
        if (strcmp(have, weights[i].stretches) != 0)
            fail_msg("%s:\n%s\ninstead of\n%s", weights[i].source, have,
                     weights[i].stretches);
        if (r->n != (weights[i].note != NULL) ||
            (r->n && !strstr(r->note[0], weights[i].note)))
            fail_msg("%s: %d notes, \"%s\"", weights[i].source, r->n,
                     r->n ? r->note[0] : "");
    }
}

/* --- notes --- */

static void notes_are_bounded(void **state)
{
    kit *k = *state;
    dr_reading *r = reading(k);
    for (int i = 0; i < 100; i++)
        dr_note(r, "note %d", i / 2);
    assert_int_equal(r->n, DR_NOTES_MAX);
    assert_string_equal(r->note[1], "prompt: note 1");
    /* A long part is cut between characters. */
    dr_prompt p;
    char long_part[256] = "[a";
    for (int i = 0; i < 60; i++)
        memcpy(long_part + 2 + 2 * i, "\xc3\xa9", 2);
    memcpy(long_part + 122, ":b:30]", 7);
    r = reading(k);
    assert_int_equal(read_over(&p, r, long_part, 10, NULL), DR_OK);
    assert_int_equal(r->n, 1);
    assert_true(dr_utf8_valid(r->note[0], strlen(r->note[0]), NULL));
}

/* --- any text --- */

static uint32_t next_random(uint32_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 17;
    return *x ^= *x << 5;
}

static void random_prompt(char *out, size_t n, uint32_t *x)
{
    static const char *const parts[] = { "(",   ")",   "[",   "]",        ":",  "|",
                                         "\\",  "1.2", "0.5", "3",        " ",  "BREAK",
                                         "a",   "AND", ",",   "-",        ".",  "[a|",
                                         "[b:", ":2]", "((",  "\xc3\xa9", "<x>" };
    size_t len = 0;
    while (len + 8 < n)
        len += (size_t)snprintf(out + len, n - len, "%s",
                                parts[next_random(x) % (sizeof parts / sizeof *parts)]);
}

/* Every text of every step is made of pieces of the prompt, weighs something finite, and
 * comes out the same when it is read again. */
static void any_text_can_be_read(void **state)
{
    kit *k = *state;
    uint32_t x = 2463534242u;
    for (int round = 0; round < 20000; round++) {
        char source[512];
        dr_prompt p;
        dr_stretch *s;
        int n;
        random_prompt(source, 8 + next_random(&x) % (round % 10 ? 40 : sizeof source - 8),
                      &x);
        dr_reading *r = reading(k);
        int64_t steps = 1 + next_random(&x) % 7;
        assert_int_equal(read_over(&p, r, source, steps, NULL), DR_OK);
        assert_true(p.n >= 1 && p.n <= steps);
        for (int64_t i = 0; i < steps; i++)
            assert_true(p.at[i] >= 0 && p.at[i] < p.n);
        for (int i = 0; i < p.n; i++) {
            size_t len = 0;
            assert_true(strlen(p.text[i]) <= strlen(source));
            assert_int_equal(dr_prompt_weigh(&s, &n, r, p.text[i], NULL), DR_OK);
            assert_true(n >= 1);
            for (int m = 0; m < n; m++) {
                assert_true(s[m].weight >= -1000 && s[m].weight <= 1000);
                assert_true(!m || s[m].is_break || s[m - 1].is_break ||
                            s[m].weight != s[m - 1].weight);
                len += strlen(s[m].text);
            }
            assert_true(len <= strlen(p.text[i]));
        }
    }
}

/* Without the characters that mean something a prompt is one text of weight 1. */
static void plain_text_stays_plain(void **state)
{
    kit *k = *state;
    uint32_t x = 99;
    for (int round = 0; round < 200; round++) {
        char source[64];
        dr_prompt p;
        dr_stretch *s;
        int n, len = (int)(next_random(&x) % 60);
        for (int i = 0; i < len; i++)
            do
                source[i] = (char)(' ' + next_random(&x) % 95);
            while (strchr("()[]\\", source[i]));
        source[len] = 0;
        dr_reading *r = reading(k);
        assert_int_equal(read_over(&p, r, source, 20, NULL), DR_OK);
        assert_int_equal(p.n, 1);
        assert_string_equal(p.text[0], source);
        assert_int_equal(dr_prompt_weigh(&s, &n, r, p.text[0], NULL), DR_OK);
        assert_int_equal(n, 1);
        assert_string_equal(s->text, source);
        assert_true(s->weight == 1);
    }
}

/* The longest prompts, at their worst, take no time to speak of. */
static void long_prompts_end(void **state)
{
    static const char *const worst[] = {
        "(",
        "[",
        "[(",
        "(a",
        "[a|",
        "[a:",
        "()",
        "[|]",
        "[a:b:",
        ":",
        "\\",
        "(((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((("
        "())"
    };
    kit *k = *state;
    for (size_t i = 0; i < sizeof worst / sizeof *worst; i++) {
        char source[8193] = "";
        size_t n = strlen(worst[i]);
        dr_prompt p;
        dr_stretch *s;
        int count;
        for (size_t at = 0; at + n < sizeof source; at += n)
            memcpy(source + at, worst[i], n);
        dr_reading *r = reading(k);
        assert_int_equal(read_over(&p, r, source, 1000, NULL), DR_OK);
        assert_int_equal(dr_prompt_weigh(&s, &count, r, p.text[0], NULL), DR_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_of_each_step),
        cmocka_unit_test(texts_are_told_apart_once),
        cmocka_unit_test(too_many_texts_are_refused),
        cmocka_unit_test(weights_of_each_stretch),
        cmocka_unit_test(notes_are_bounded),
        cmocka_unit_test(any_text_can_be_read),
        cmocka_unit_test(plain_text_stays_plain),
        cmocka_unit_test(long_prompts_end),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
