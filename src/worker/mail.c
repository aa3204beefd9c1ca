#include "worker/mail.h"

#include "base/clock.h"

void dr_mail_init(dr_mail *m)
{
    pthread_condattr_t attr;
    *m = (dr_mail){ .head = 0 };
    pthread_mutex_init(&m->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&m->changed, &attr);
    pthread_condattr_destroy(&attr);
}

void dr_mail_destroy(dr_mail *m)
{
    pthread_cond_destroy(&m->changed);
    pthread_mutex_destroy(&m->lock);
}

void dr_mail_put(dr_mail *m, const dr_note *note)
{
    pthread_mutex_lock(&m->lock);
    while (m->count == DR_MAIL_NOTES)
        pthread_cond_wait(&m->changed, &m->lock);
    m->ring[(m->head + m->count++) % DR_MAIL_NOTES] = *note;
    pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->lock);
}

bool dr_mail_take(dr_mail *m, dr_note *out, int64_t wait_ms)
{
    struct timespec end = dr_deadline(wait_ms < 0 ? 0 : wait_ms);
    int late = 0;
    pthread_mutex_lock(&m->lock);
    while (!m->count && !m->closed && !late)
        late = wait_ms < 0 ? pthread_cond_wait(&m->changed, &m->lock)
                           : pthread_cond_timedwait(&m->changed, &m->lock, &end);
    bool got = m->count > 0;
    if (got) {
        *out = m->ring[m->head];
        m->head = (m->head + 1) % DR_MAIL_NOTES;
        m->count--;
        pthread_cond_broadcast(&m->changed);
    }
    pthread_mutex_unlock(&m->lock);
    return got;
}

void dr_mail_close(dr_mail *m)
{
    pthread_mutex_lock(&m->lock);
    m->closed = true;
    pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->lock);
}
