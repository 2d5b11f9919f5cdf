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
comment on column first_answers.key is 'The key.';
comment on column first_answers.fingerprint is 'SHA-256 over path, query and content: the same key may not mean something else.';
comment on column first_answers.status is 'The status of the answer.';
comment on column first_answers.headers is 'Its headers that matter.';
comment on column first_answers.body is 'Its body, byte for byte.';
comment on column first_answers.created_at is 'When it was given.';
comment on constraint first_answers_pkey on first_answers is 'A caller''s key has one answer.';

-- idempotency.keep sweeps the oldest out.
create index if not exists first_answers_created_at_idx on first_answers (created_at);
