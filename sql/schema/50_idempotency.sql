-- 50 Idempotency: what a POST with an Idempotency-Key was answered, written in the transaction of its data and kept for 24 hours.

create table if not exists first_answers (
    actor       text        not null,
    key         text        not null,
    fingerprint text        not null,
    status      integer     not null,
    headers     json        not null,
    body        text        not null,
    created_at  timestamptz not null default now(),
    constraint first_answers_pkey primary key (actor, key)
);

comment on table first_answers is 'The first answer to each Idempotency-Key of the last 24 hours.';
comment on column first_answers.actor is 'Who sent it: two callers may choose the same key.';
comment on column first_answers.key is 'The key, behind what its caller reaches (token/writer/7/…): callers of one name may differ in it.';
comment on column first_answers.fingerprint is 'SHA-256 over path, query and content: the same key may not mean something else.';
comment on column first_answers.status is 'The status of the answer.';
comment on column first_answers.headers is 'Its headers that matter.';
comment on column first_answers.body is 'Its body, byte for byte.';
comment on column first_answers.created_at is 'When it was given.';
comment on constraint first_answers_pkey on first_answers is 'A caller''s key has one answer.';

-- idempotency.keep sweeps the oldest out.
create index if not exists first_answers_created_at_idx on first_answers (created_at);

-- What each caller has kept, counted with the answers, so that nobody counts them. By the hour: an hour is left out once all of it is
-- forgotten, and so no answer that is swept need be taken off. A row of its own for every connection: in one row of a caller, each of its
-- requests would wait for the commit of the one before.
create table if not exists answer_counts (
    actor   text        not null,
    hour    timestamptz not null,
    slot    integer     not null,
    answers bigint      not null,
    bytes   bigint      not null,
    constraint answer_counts_pkey primary key (actor, hour, slot)
);

comment on table answer_counts is 'How many first answers are kept of each caller, and how long they are.';
comment on column answer_counts.actor is 'Who sent the requests.';
comment on column answer_counts.hour is 'The hour in which they were answered.';
comment on column answer_counts.slot is 'Of several that are counted at once.';
comment on column answer_counts.answers is 'How many.';
comment on column answer_counts.bytes is 'The length of their bodies.';
comment on constraint answer_counts_pkey on answer_counts is 'An hour of a caller is counted once a slot.';

-- idempotency.keep sweeps the oldest out.
create index if not exists answer_counts_hour_idx on answer_counts (hour);

select fence('first_answers', 'actor = (select history.actor())');

select fence('answer_counts', 'actor = (select history.actor())');
